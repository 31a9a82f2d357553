"""Stages of toy_stage.py's programs, and what became of their jobs."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from launchers.executors import slurm
from launchers.planning.plan import PlannedStage, Task
from recipes.stage import Process, Resources, Stage

HERE = Path(__file__).resolve().parent
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
WAIT_S = 200


def toy(what: str, path: Path, name: str = "main", **kwargs: int | bool | str) -> Process:
    return Process(name, ["python", str(HERE / "toy_stage.py"), what, str(path)], **kwargs)  # type: ignore[arg-type]


def stage(run: Path, name: str, *processes: Process, after: tuple[str, ...] = (), **needs: Any) -> PlannedStage:
    module: Any = SimpleNamespace(Config=Stage, processes=lambda cfg, path: list(processes))
    task = Task(name, "", {"uses": "fake", "name": name, "output_dir": str(run / name)}, module)
    return PlannedStage(name, "toy", list(after), Resources(**{"time": "00:10:00", **needs}), [task])


def state(job: str) -> dict[str, str]:
    """What scontrol says of the job; of an array, of an element that has not ended as long as there is one."""
    shown = subprocess.run(
        ["scontrol", "show", "job", "--oneliner", job], capture_output=True, text=True, timeout=60, check=True
    )
    elements = [dict(f.split("=", 1) for f in line.split() if "=" in f) for line in shown.stdout.splitlines() if line]
    return next((found for found in elements if found["JobState"] not in ENDED), elements[0])


def ended(run: Path) -> dict[str, dict[str, str]]:
    """Each stage's final state; where one never ends, the logs are in the failure."""
    jobs = json.loads((run / "jobs.json").read_text())
    deadline = time.monotonic() + WAIT_S
    while True:
        states = {name: state(record["job"]) for name, record in jobs.items()}
        if all(found["JobState"] in ENDED for found in states.values()):
            return states
        assert time.monotonic() < deadline, f"{[found['JobState'] for found in states.values()]}: {logs(run)}"
        time.sleep(0.5)


def wait_until(condition: Callable[[], object], run: Path, limit_s: float = WAIT_S, poll_s: float = 0.1) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, logs(run)
        time.sleep(poll_s)


def logs(run: Path) -> str:
    return "\n".join(f"--- {path}\n{path.read_text()}" for path in sorted(run.rglob("*.log")))


# the nodes are this machine: that they see its disk need not be asked, wherever the checkout is
CONFIG = slurm.Config(python=sys.executable, gpus_per_node=2, check_paths=False)
