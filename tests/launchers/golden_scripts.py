"""The batch scripts that tests look at: real recipes on clusters as sites have them."""

from dataclasses import dataclass
from pathlib import Path

from launchers.executors import slurm
from launchers.planning import images
from launchers.slurm.sbatch import BODY, ROOT
from tests.composing import resolve_recipe

GOLDEN = Path(__file__).parent / "golden"
RUNS = Path("/lustre/runs")
FILES = {name: f"/lustre/images/{name}.sqsh" for name in ("base", "nemo", "trtllm")}
LARGE = {"account": "llm_research", "partition": "batch", "exclusive": True, "mem": "0"}
PYXIS = slurm.Config(
    **LARGE,  # type: ignore[arg-type]
    container="pyxis",
    images=FILES,
    mounts=["/lustre/models:/models:ro", "/lustre/data:/data:ro"],
    env={"HF_HOME": "/lustre/cache/huggingface", "NCCL_DEBUG": "WARN"},
    env_from=["HF_TOKEN"],
    max_parallel_tasks=16,
)
ENROOT = slurm.Config(
    **LARGE,  # type: ignore[arg-type]
    container="enroot",
    images=FILES,
    mounts=["/lustre/models:/models:ro", "/lustre/data"],
    env={"NCCL_DEBUG": "WARN"},
    env_from=["HF_TOKEN"],
    local_scratch="/local/scratch",
)
BARE = slurm.Config(
    account="llm_research",
    partition="gpu,gpu_long",
    qos="normal",
    constraint="ib&h100",
    reservation="maths",
    gpu_option="gres",
    gpu_type="h100",
    cpus_per_task=12,
    mem="900G",
    max_time="1-00:00:00",
    python="/shared/venv/bin/python",
    setup=["source /etc/profile", "module load cuda/12.8"],
    env={"HF_HOME": "/shared/it's here"},
    extra_sbatch={"exclude": "node[13-14]", "mail-type": "FAIL", "open-mode": None},
    extra_srun={"mpi": "pmix", "cpu-bind": None},
)


@dataclass(frozen=True)
class Script:
    name: str
    config: slurm.Config
    recipe: str
    stage: str
    overrides: tuple[str, ...] = ()
    max_array_size: int | None = None

    def text(self) -> str:
        planned = resolve_recipe(self.recipe, *self.overrides, run_dir=RUNS / self.recipe)[self.stage]
        text = slurm.script(self.config, planned, self.max_array_size).replace(str(ROOT), "/lustre/repo")
        # the version in the text: the tree may have got another one since
        return text.replace(images._code_version(), "1ae4590")

    def head(self) -> str:
        """What is this stage's own; the rest is launchers/slurm/sbatch.sh.

        Raises:
            ValueError: it is not.
        """
        text, body = self.text(), BODY.read_text()
        if not text.endswith(body):
            raise ValueError(f"{self.name} does not end with {BODY}")
        return text.removesuffix(body)


BF16 = ("server=trtllm_405b_bf16", "model@teacher=llama31_405b_instruct_bf16")
SCRIPTS = [
    Script("sft_8b_pyxis", PYXIS, "sft_full", "train"),
    Script("sft_70b_pyxis", PYXIS, "sft_70b", "train"),
    Script("generate_405b_fp8_pyxis", PYXIS, "generate", "generate", ("stages.generate.shards=40",)),
    Script("generate_405b_bf16_pyxis", PYXIS, "generate", "generate", BF16),
    Script("sft_8b_bare", BARE, "sft_full", "train"),
    Script("evaluate_bare", BARE, "sft_full", "evaluate"),
    Script("sft_8b_enroot", ENROOT, "sft_full", "train"),
    Script("generate_405b_fp8_enroot", ENROOT, "generate", "generate", ("stages.generate.shards=40",), 16),
]
