"""One machine: its GPUs, and stages that run on it one after another. What local, docker and enroot share."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from omegaconf import MISSING

from launchers.here.display import Display
from launchers.here.processes import RunningTask, Runtime
from launchers.planning.cluster import Cluster
from launchers.planning.plan import PlannedStage
from nemo_ext.machine.gpus import list_devices

POLL_S = 0.1


@dataclass(kw_only=True)
class Machine(Cluster):
    executor: str = MISSING
    parallel_tasks: int = 2
    """Shards or variants of one stage that run at once."""
    gpus: int | None = None
    """GPUs of this machine; None: ask nvidia-smi."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of every process."""

    runs_here: ClassVar[bool] = True

    @property
    def tasks_at_once(self) -> int:
        return self.parallel_tasks


def gpus(config: Machine) -> int:
    """GPUs that processes here can use; 0 without a working nvidia-smi."""
    if config.gpus is not None:
        return config.gpus
    return len(list_devices())


def devices(config: Machine) -> list[str]:
    """The GPUs here, as CUDA_VISIBLE_DEVICES names them."""
    visible = config.env.get("CUDA_VISIBLE_DEVICES", os.environ.get("CUDA_VISIBLE_DEVICES"))
    return visible.split(",")[: gpus(config)] if visible else [str(index) for index in range(gpus(config))]


def check_size(config: Machine, stages: list[PlannedStage]) -> None:
    """Raises ValueError when this machine lacks the GPUs or the nodes a stage needs."""
    needy = [stage for stage in stages if stage.resources.gpus or stage.resources.nodes > 1]
    if not needy:
        return
    most = max(needy, key=lambda stage: (stage.resources.nodes, stage.resources.gpus))
    found = gpus(config)
    if most.resources.nodes > 1 or most.resources.gpus > found:
        raise ValueError(
            f"stage {most.name} needs {most.resources.nodes} node(s) x {most.resources.gpus} GPUs; this machine "
            f"(cluster.executor={config.executor}) is 1 node with {found}. Two ways on: cluster=<name of a file in "
            "conf/cluster> to run where they are, or +scale=tiny to run the same recipe here on the CPU."
        )


def run(config: Machine, stages: list[PlannedStage], display: Display, runtime: Runtime) -> None:
    """Run the stages in order.

    Raises:
        TaskFailed: the first task that failed, with its last words; what it had done is kept for the rerun.
    """
    for stage in stages:
        _run_stage(config, stage, display, runtime)


def _run_stage(config: Machine, stage: PlannedStage, display: Display, runtime: Runtime) -> None:
    waiting = [task for task in stage.tasks if task.why_not_done()]
    running: list[RunningTask] = []
    needed = stage.resources.gpus
    idle = devices(config) if needed else []
    folders = [task.folder for task in stage.tasks]
    display.begin(stage.name, resumed=any((task.folder / "logs").exists() for task in waiting))
    ended: list[Path] | None = None
    try:
        while waiting or running:
            while waiting and len(running) < config.parallel_tasks and len(idle) >= needed:
                running.append(RunningTask(stage, waiting.pop(0), runtime, idle[:needed]))
                del idle[:needed]
            for task in [each for each in running if each.ended()]:
                running.remove(task)
                idle += task.devices
            display.beat([each.task.folder for each in running], len(folders) - len(waiting) - len(running))
            time.sleep(POLL_S)
        ended = folders
    finally:
        for task in running:
            task.stop()
        display.end(ended)
