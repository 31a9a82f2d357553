"""launchers/status.py of a run with 5,000 shards: the whole command, and its own part, against one os.stat of each _DONE."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from launchers.following.run_status import look, status

ROOT = Path(__file__).resolve().parent.parent.parent
SHARDS = 5000
TARGET_S = 1.0
REPEATS = 5
STAGES = (
    "prepare",
    "solve",
    "grade",
    "vote",
    "filter",
    "prepare_sft",
    "train",
    "average",
    "export",
    "evaluate",
    "report",
)
SQUEUE = "#!/bin/sh\ncat {answer}\n"


def _make(run_dir: Path, shards_done: bool) -> None:
    """`solve` has the shards; Slurm has the jobs."""
    stages = {name: {"after": [], "parts": [], "shards": SHARDS if name == "solve" else 0} for name in STAGES}
    jobs = {
        name: {"job": str(100 + number), "after": [], "array": f"0-{SHARDS - 1}" if name == "solve" else ""}
        for number, name in enumerate(STAGES)
    }
    for name in STAGES:
        folders = [run_dir / name / f"shard_{index:04d}" for index in range(SHARDS)] if name == "solve" else []
        for folder in folders or [run_dir / name]:
            folder.mkdir(parents=True)
            (folder / "config.yaml").write_text("uses: x\n")
            if shards_done:
                (folder / "manifest.json").write_text('{"seconds": 3}')
                (folder / "_DONE").write_text("{}")
    record = {"pid": 1, "host": "x", "process_started": 0.0, "started": 0.0, "executor": "slurm", "ended": 1.0}
    (run_dir / "launcher.json").write_text(json.dumps(record | {"stages": stages, "todo": list(STAGES)}))
    (run_dir / "jobs.json").write_text(json.dumps(jobs))


def _squeue(folder: Path, state: str) -> None:
    """A stand-in that answers at once, one line per element, as for elements that run or have just ended."""
    rest = f"|{state}|None|node1|1:00|2026-11-21T19:17:10|2026-11-21T19:18:10|0|0|"
    lines = [f"101_{index}{rest}" for index in range(SHARDS)]
    (folder / "answer").write_text("\n".join(lines) + "\n")
    (folder / "squeue").write_text(SQUEUE.format(answer=folder / "answer"))
    (folder / "squeue").chmod(0o755)


def _best(work: Callable[[], object]) -> float:
    """Seconds."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def _stat_all(run_dir: Path) -> None:
    for index in range(SHARDS):
        os.stat(f"{run_dir}/solve/shard_{index:04d}/_DONE")


def _command(run_dir: Path) -> None:
    argv = [sys.executable, str(ROOT / "launchers" / "status.py"), str(run_dir)]
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)


def run() -> Iterator[dict[str, Any]]:
    path = os.environ["PATH"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PATH"] = f"{folder}:{path}"
        try:
            for what, done, state in (("done", True, "COMPLETED"), ("running", False, "RUNNING")):
                run_dir = folder / what
                _make(run_dir, done)
                _squeue(folder, state)
                found = status(look(run_dir)).rows[1]
                assert found.tasks == {what: SHARDS}, f"{found.tasks} are not {SHARDS} tasks that are {what}"
                peer = _best(lambda: _stat_all(folder / "done"))
                ours = _best(lambda: status(look(run_dir)))
                yield _figure(f"status_{SHARDS}_shards_{what}", ours, peer)
                yield _figure(f"status_{SHARDS}_shards_{what}_command", _best(lambda: _command(run_dir)), None)
        finally:
            os.environ["PATH"] = path


def _figure(name: str, value: float, peer: float | None) -> dict[str, Any]:
    ratio = None if peer is None else round(value / peer, 2)
    peer = None if peer is None else round(peer, 4)
    return {"name": name, "value": round(value, 4), "unit": "s", "target": TARGET_S, "peer": peer, "ratio": ratio}


if __name__ == "__main__":
    for figure in run():
        print(json.dumps(figure))
