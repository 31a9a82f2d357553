"""conf/cluster/slurm.yaml: what a Slurm cluster has, and how jobs ask for it."""

from dataclasses import dataclass, field

from launchers.planning.cluster import Cluster
from launchers.submit_host.link import SshHost


@dataclass(kw_only=True)
class Config(Cluster):
    executor: str = "slurm"
    ssh: SshHost | None = None
    """The machine to submit from, where it is not this one."""
    gpu: str | None = "h100"
    """Kind of the nodes' GPUs, a name in nemo_ext/machine/gpus.py, for estimates; null: not known."""
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    """Features the nodes must have."""
    reservation: str | None = None
    gpus_per_node: int = 8
    """GPUs of a node here; a stage that wants more is refused."""
    gpu_option: str = "gpus-per-node"
    """How GPUs are asked for: gpus-per-node, gres, or none, where Slurm does not count them."""
    gpu_type: str | None = None
    """What Slurm calls the kind (`h100` in gpu:h100:8); null: any."""
    exclusive: bool = False
    """Take whole nodes."""
    mem: str | None = None
    """Memory per node, such as 200G; "0" is all of it; null: what Slurm gives by default."""
    cpus_per_task: int | None = None
    """CPUs per GPU process, or of a node where a stage has one process there; null: what Slurm gives by default."""
    max_time: str | None = None
    """Longest time limit here, HH:MM:SS: a stage that asks for more gets this, and goes on when it is requeued."""
    max_parallel_tasks: int = 8
    """Shards or variants of one stage that run at once."""
    max_requeues: int = 20
    """How often a job may start again: after its time limit, a failed node or preemption. Errors end it at once."""
    python: str = "python"
    """The interpreter on the nodes, or inside the container."""
    setup: list[str] = field(default_factory=list)
    """Lines of bash at the top of each job, e.g. `module load cuda`."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of every process. Written into submit.sh: no secrets."""
    env_from: list[str] = field(default_factory=list)
    """Names of variables (tokens, say) that jobs get from the launching shell; their values are written nowhere."""
    container: str = "none"
    """none, pyxis or enroot: how steps get into the stage's image (launchers/slurm/sbatch_container.py)."""
    images: dict[str, str] = field(default_factory=dict)
    """Image name -> .sqsh file or reference, where it differs from containers/images.yaml."""
    check_versions: bool = True
    """Refuse an image with other versions inside than containers/images.yaml says."""
    mounts: list[str] = field(default_factory=list)
    """`source:target[:flags]` for the container; the run folder and this checkout are always mounted."""
    local_scratch: str = "/tmp"  # noqa: S108 - each node's own, where enroot keeps what a job needs while it runs
    """A folder of each node's own, for what a job's containers need while they run."""
    check_paths: bool = True
    """Refuse models, data, images and mounts that are not here, and a run folder that only this machine has."""
    extra_sbatch: dict[str, str | None] = field(default_factory=dict)
    """More sbatch options by long name; "" is a flag, null removes one of ours."""
    extra_srun: dict[str, str | None] = field(default_factory=dict)
    """The same of srun, for every step."""

    @property
    def tasks_at_once(self) -> int:
        return self.max_parallel_tasks
