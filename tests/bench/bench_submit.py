"""What submitting takes: 12 stages of openmathinstruct2 with arrays of 64, 90 and 2,880 tasks, to stand-ins for Slurm.

From the start of Python to the last job id, in a process of its own, as a person waits for it; the stand-ins answer at
once. CPU is this process' own share of that: the rest waits for the disk and the stand-ins. The ratio is against importing Hydra and composing the same configuration, which any Hydra program does first.
`python -m tests.bench.bench_submit` prints the parts.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
LEFT_OUT = (
    "downsample",
    "prepare_sft",
    "train",
    "average",
    "export",
    "evaluate",
    "evaluate_teacher",
    "explore",
    "report",
)
WORDS = [
    "+recipe=openmathinstruct2",
    "cluster=slurm",
    "cluster.check_paths=false",
    *(f"~stages.{s}" for s in LEFT_OUT),
]
TARGET_S, REPEATS = 3.0, 3
CLIENT = """#!/bin/sh
case "${0##*/} $*" in
  "scontrol show config") echo "MaxArraySize = 1001" ;;
  "scontrol show partition --oneliner") echo "PartitionName=gpu Default=YES MaxTime=UNLIMITED State=UP TotalNodes=64" ;;
  "sbatch --parsable"*) echo $$ ;;
esac
"""


def _timed(parts: dict[str, float], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            parts[name] = parts.get(name, 0.0) + time.perf_counter() - started

    return call


def child() -> None:
    """One submission; prints the seconds of its parts."""
    started = time.perf_counter()
    parts: dict[str, float] = {}
    from launchers import run
    from launchers.estimates import estimate
    from launchers.executors import slurm
    from launchers.here.display import Display
    from launchers.planning import plan
    from tests.composing import compose_recipe

    parts["import"] = time.perf_counter() - started
    steps = [
        ("plan", plan, "resolve"),
        ("estimate", estimate, "estimate"),
        ("preflight", slurm, "check"),
        ("configs", plan, "write_configs"),
        ("submit", slurm, "submit"),
    ]
    for name, module, function in steps:
        setattr(module, function, _timed(parts, name, getattr(module, function)))
    config = _timed(parts, "compose", compose_recipe)("openmathinstruct2", *WORDS[1:])
    run.launch(config, Display())
    parts["whole"] = time.perf_counter() - started
    parts["CPU"] = time.process_time()
    jobs = json.loads((Path(os.environ["RUNS_DIR"]) / "openmathinstruct2" / "jobs.json").read_text())
    assert len(jobs) == 12 and len(jobs["solve_new"]["jobs"]) == 3, "12 stages, and 2,880 tasks are three arrays"
    print(json.dumps(parts))


def measure() -> dict[str, float]:
    """Seconds of each part of the fastest of REPEATS submissions, each in a fresh process and folder."""
    found = []
    # removed together at the end: ext4 seeks seconds for inodes right after thousands were freed, as no user's launch does
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bench-submit-") as folder:
        clients = Path(folder, "bin")
        clients.mkdir()
        for name in ("sbatch", "scontrol", "squeue", "scancel"):
            (clients / name).write_text(CLIENT)
            (clients / name).chmod(0o755)
        for repeat in range(REPEATS):
            env = {**os.environ, "PATH": f"{clients}:{os.environ['PATH']}", "RUNS_DIR": f"{folder}/runs_{repeat}"}
            argv = [sys.executable, "-m", "tests.bench.bench_submit", "child"]
            before = time.perf_counter()
            done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(done.stderr)
            parts = json.loads(done.stdout)
            parts["python"] = time.perf_counter() - before - parts["whole"]
            found.append(parts)
    return min(found, key=lambda parts: parts["whole"])


def run() -> Iterator[dict[str, Any]]:
    parts = measure()
    whole = parts["whole"] + parts["python"]
    peer = parts["import"] + parts["compose"]
    name = "12 stages and 3,034 tasks submitted"
    yield {"name": name, "value": whole, "unit": "s", "target": TARGET_S, "peer": peer, "ratio": whole / peer}
    for part in ("import", "compose", "plan", "estimate", "preflight", "configs", "submit", "CPU"):
        yield {"name": f"of it {part}", "value": parts[part], "unit": "s", "target": None, "peer": None, "ratio": None}


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        child()
    else:
        for each in run():
            versus = f"   {each['ratio']:.1f} x importing and composing" if each["ratio"] else ""
            print(f"{each['name']:<40} {each['value']:6.2f} {each['unit']}{versus}")
