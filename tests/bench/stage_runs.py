"""A stage run as the launcher runs it, with what it took: wall time and the memory of all its processes."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil

SAMPLED_S = 0.2
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class StageRun:
    seconds: float
    cpu_seconds: float
    """CPU time of all its processes: what wall time would be on a core of its own; other work on the machine does not count."""
    peak_bytes: int
    """Proportional set size of all processes together, the most that was seen."""
    manifest: dict[str, Any]


def write_stage_output(folder: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """output.jsonl in `folder`, with a manifest, as a stage leaves it."""
    folder.mkdir(parents=True)
    with (folder / "output.jsonl").open("wb") as handle:
        for row in rows:
            handle.write(orjson.dumps(row) + b"\n")
    (folder / "manifest.json").write_text("{}")
    return folder / "output.jsonl"


def orjson_seconds(path: Path) -> float:
    """One pass over its lines: the least that reading rows takes."""
    start = time.perf_counter()
    with path.open("rb") as handle:
        for line in handle:
            orjson.loads(line)
    return time.perf_counter() - start


def run_stage(folder: Path, uses: str, keys: dict[str, Any]) -> StageRun:
    """Raises CalledProcessError when it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"uses": uses, "name": uses, "output_dir": str(folder), **keys}
    (folder / "config.yaml").write_text(json.dumps(content))  # JSON is YAML
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start, peak = time.perf_counter(), 0
    argv = [sys.executable, "-m", "recipes.run_stage", str(folder / "config.yaml")]
    with subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, _memory(process.pid))
            time.sleep(SAMPLED_S)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv, (folder / "error.json").read_text())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return StageRun(seconds, cpu, peak, json.loads((folder / "manifest.json").read_text()))


def _memory(pid: int) -> int:
    total = 0
    try:
        for each in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            total += each.memory_full_info().pss
    except psutil.NoSuchProcess:
        return total
    return total
