"""Stages of plain processes, for executors that run them on this machine."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil

from launchers.planning.plan import PlannedStage, Task
from nemo_ext.records import manifest
from recipes.stage import Process, Resources, Stage

Left = Callable[[], list[psutil.Process]]
"""What the fixture `left_behind` asks for."""


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two
        return True


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 100  # a test may take 120
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def python(name: str, code: str, **more: object) -> Process:
    return Process(name, ["python", "-c", code], **more)  # type: ignore[arg-type]


def bare_stage(
    folder: Path, *processes: Process, parts: int = 1, resources: Resources | None = None, name: str = "fake"
) -> PlannedStage:
    """Tasks part0, part1, ... in `folder`, which need not exist."""
    module = SimpleNamespace(Config=Stage, processes=lambda cfg, path: list(processes))
    contents = [
        {"uses": "fake", "name": name, "output_dir": str(folder / f"part{part}"), "shard": part}
        for part in range(parts)
    ]
    tasks = [Task(name, f"part{part}", content, module) for part, content in enumerate(contents)]  # type: ignore[arg-type]
    return PlannedStage(name, "fake", [], resources or Resources(), tasks)


def process_stage(folder: Path, *processes: Process, parts: int = 1, **resources: object) -> PlannedStage:
    """The same, to be run: with the manifests that run_stage would have left, of another config, so that the tasks run."""
    planned = bare_stage(folder, *processes, parts=parts, resources=Resources(**resources))  # type: ignore[arg-type]
    for task in planned.tasks:
        task.folder.mkdir(parents=True, exist_ok=True)
        manifest.write(task.folder, "fake", "fake", "another", manifest.Facts(), 0.0)
    return planned
