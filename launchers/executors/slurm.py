"""A Slurm cluster: one batch script per stage, submitted with its dependencies; the launcher does not wait.

Reads <run_dir>/<stage>/config.yaml on the nodes, so the run folder and this checkout are on a file system they share.
Writes <run_dir>/<stage>/submit.sh (launchers/sbatch.py makes its text) and <run_dir>/jobs.json:
    {"train": {"job": "4711", "after": ["4710"], "array": "", "script": ".../train/submit.sh"}}
"""

import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launchers.cluster import Cluster
from launchers.display import Display
from launchers.plan import PlannedStage
from launchers.sbatch import array, script
from launchers.slurm_client import client
from nemo_ext.files import write_json_atomic, write_text_atomic


@dataclass(kw_only=True)
class Config(Cluster):
    executor: str = "slurm"
    gpu: str | None = "h100"
    """Kind of the nodes' GPUs, a name in nemo_ext/gpus.py, for estimates; null: not known."""
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    gpus_per_node: int = 8
    """GPUs of a node here; a stage that wants more is refused."""
    max_parallel_tasks: int = 8
    """Shards or variants of one stage that run at once."""
    max_requeues: int = 20
    """How often a job that was stopped by its time limit puts itself back in the queue."""
    python: str = "python"
    """The interpreter on the nodes, or inside the container."""
    setup: list[str] = field(default_factory=list)
    """Lines of bash at the top of each job, e.g. `module load cuda`."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of every process. Written into submit.sh: no secrets."""
    env_from: list[str] = field(default_factory=list)
    """Names of variables (tokens, say) that jobs get from the launching shell; their values are written nowhere."""
    container: str = "none"
    """none, or pyxis: steps run in the stage's image."""
    images: dict[str, str] = field(default_factory=dict)
    """Image name -> .sqsh file or reference, where it differs from containers/images.yaml."""
    mounts: list[str] = field(default_factory=list)
    """`source:target[:flags]` for the container; the run folder and this checkout are always mounted."""
    extra_sbatch: dict[str, str | None] = field(default_factory=dict)
    """More sbatch options by long name; "" is a flag, null removes one of ours."""

    @property
    def tasks_at_once(self) -> int:
        return self.max_parallel_tasks


def check(config: Config, stages: list[PlannedStage]) -> None:
    """Raises ValueError when these stages cannot be submitted here, or are already."""
    if shutil.which("sbatch") is None:
        raise ValueError(
            "cluster.executor=slurm, but there is no sbatch on PATH. Two ways on: launch from the cluster's login "
            "node, or cluster=local +scale=tiny to run the same recipe here on the CPU."
        )
    if config.container not in ("none", "pyxis"):
        raise ValueError(f"cluster.container={config.container!r}; it may be none or pyxis")
    unset = [name for name in config.env_from if name not in os.environ]
    if unset:
        raise ValueError(f"cluster.env_from names {', '.join(unset)}, not set here; export it, or remove it")
    for stage in stages:
        if stage.resources.gpus > config.gpus_per_node:
            raise ValueError(
                f"stages.{stage.name}.resources.gpus={stage.resources.gpus}, but a node here has "
                f"{config.gpus_per_node} (cluster.gpus_per_node); use more nodes with fewer GPUs each"
            )
        script(config, stage)
    _check_arrays(stages)
    _check_not_queued(stages)


def submit(config: Config, stages: list[PlannedStage], display: Display) -> None:
    """Submit the stages that are not done and return; each waits for those it is `after`.

    Raises:
        ValueError: Slurm refused one; those submitted before it are cancelled.
    """
    jobs: dict[str, str] = {}
    try:
        for stage in stages:
            after = [jobs[other] for other in stage.after if other in jobs]
            # what comes after a stage that runs may see other inputs, so it runs too
            if not after and stage.why_not_done() is None:
                display.done_before(stage.name, [task.folder for task in stage.tasks])
                continue
            jobs[stage.name] = _submit_stage(config, stage, after)
            waits = f", after {', '.join(after)}" if after else ""
            display.line(f"{stage.name:<18} job {jobs[stage.name]}{waits}  {stage.folder}/logs")
    except BaseException:
        if jobs:
            client(["scancel", *jobs.values()])
        raise


def _submit_stage(config: Config, stage: PlannedStage, after: list[str]) -> str:
    folder = stage.folder
    path = folder / "submit.sh"
    (folder / "logs").mkdir(parents=True, exist_ok=True)  # Slurm opens the job's log before the script runs
    write_text_atomic(path, script(config, stage))
    tasks = [index for index, task in enumerate(stage.tasks) if after or task.why_not_done()]
    elements = array(tasks) if len(stage.tasks) > 1 else ""
    options = ["--parsable"]
    if after:
        options += [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"]
    if elements:
        options += [f"--array={elements}%{config.max_parallel_tasks}"]
    job = client(["sbatch", *options, str(path)]).strip().split(";")[0]
    record = {"job": job, "after": after, "array": elements, "script": str(path)}
    write_json_atomic(folder.parent / "jobs.json", _recorded(folder.parent) | {stage.name: record})
    return job


def _recorded(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "jobs.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _check_arrays(stages: list[PlannedStage]) -> None:
    largest = max(stages, key=lambda stage: len(stage.tasks), default=None)
    if largest is None or len(largest.tasks) == 1:
        return
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", client(["scontrol", "show", "config"]))
    if found and len(largest.tasks) > int(found[1]):
        raise ValueError(
            f"stages.{largest.name} has {len(largest.tasks)} tasks, but job arrays here have up to {found[1]} "
            f"elements (MaxArraySize); lower stages.{largest.name}.shards"
        )


def _check_not_queued(stages: list[PlannedStage]) -> None:
    """Two jobs must not write one folder."""
    earlier = {
        stage.name: record["job"]
        for stage in stages
        if (record := _recorded(stage.folder.parent).get(stage.name)) is not None
    }
    alive = set(client(["squeue", "--me", "--noheader", "--format=%F"]).split()) if earlier else set()
    for name, job in earlier.items():
        if job in alive:
            raise ValueError(f"stage {name} is job {job}, which has not ended. Wait for it, or: scancel {job}")
