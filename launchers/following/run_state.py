"""A run's state from its files: stages and tasks, which are done, since when one runs, how far, and its error.

Files' times are compared with each other only, never with a host's clock, which may differ from the file server's.
Of a finished task one file is looked at, so that 5,000 finished shards cost 5,000 calls of os.stat.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launchers.following.launcher_record import Record
from nemo_ext.records.manifest import DONE
from nemo_ext.records.progress import HEARTBEAT, read_heartbeat

SET_ASIDE = re.compile(r"\.old\d+$")
ACTIVITY = (".lock", "error.json", HEARTBEAT, "logs")
"""What a task writes when it starts, goes on and fails; its folder's config.yaml is the launcher's."""


@dataclass(frozen=True)
class StageFiles:
    name: str
    folder: Path
    after: list[str]
    parts: list[str]
    """Variants or `shard_<n>`, each a folder; `[""]`: the stage is one task, and its folder is the stage's."""
    done_at: list[float | None]
    """When each part's _DONE was written, by the file system's clock."""
    submitted: float = 0.0
    """When a job of it was last submitted; 0.0: never."""

    def task_folder(self, index: int) -> Path:
        return self.folder / self.parts[index] if self.parts[index] else self.folder

    @property
    def sharded(self) -> bool:
        return self.parts[0].startswith("shard_")


def mtime(path: str | Path) -> float | None:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return None


def stages(run_dir: Path, record: Record | None, jobs: dict[str, Any]) -> list[StageFiles]:
    """The run's stages in the recipe's order; without a launcher's record, those on disk as their configs were written."""
    if record is None:
        names = {str(job["job"]): name for name, job in jobs.items()}
        described = {
            name: {
                "after": [names[job] for job in jobs.get(name, {}).get("after", []) if job in names],
                "parts": parts,
            }
            for name, parts in _on_disk(run_dir)
        }
    else:
        described = record.stages
    return [_stage(run_dir / name, about) for name, about in described.items()]


def _stage(folder: Path, about: dict[str, Any]) -> StageFiles:
    shards = int(about.get("shards", 0))
    width = len(str(shards - 1))
    parts = (
        [f"shard_{index:0{width}d}" for index in range(shards)]
        or [str(part) for part in about.get("parts", [])]
        or [""]
    )
    base = str(folder)
    done_at = [mtime(f"{base}/{part}/{DONE}") for part in parts]
    submitted = mtime(f"{base}/submit.sh") or 0.0
    return StageFiles(folder.name, folder, [str(name) for name in about.get("after", [])], parts, done_at, submitted)


def _on_disk(run_dir: Path) -> list[tuple[str, list[str]]]:
    """Stages that have configs, and their parts, in the order in which their configs were written."""
    found = []
    for entry in os.scandir(run_dir):
        if not entry.is_dir() or SET_ASIDE.search(entry.name):
            continue
        folder = Path(entry.path)
        parts = (
            [] if (folder / "config.yaml").is_file() else sorted(p.parent.name for p in folder.glob("*/config.yaml"))
        )
        written = mtime(folder / (parts[0] if parts else "") / "config.yaml")
        if written is not None:
            found.append((written, entry.name, parts))
    return [(name, parts) for _, name, parts in sorted(found)]


def read_jobs(run_dir: Path) -> dict[str, dict[str, Any]]:
    """jobs.json; empty where there is none.

    Raises:
        ValueError: it is not what launchers/executors/slurm.py writes.
    """
    path = run_dir / "jobs.json"
    try:
        jobs = json.loads(path.read_text())
        return {str(name): dict(job) for name, job in jobs.items() if job["job"]}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged: {error}. The jobs are in squeue --me; removing the file loses only them"
        ) from error


def activity(folder: Path) -> float:
    """When a task was last known to do something; 0.0: never."""
    return max(mtime(f"{folder}/{name}") or 0.0 for name in ACTIVITY)


def started(folder: Path) -> float | None:
    """When the task's last main process began: it opens the lock anew."""
    return mtime(folder / ".lock")


def error_of(folder: Path, since: float) -> tuple[str, str] | None:
    """Message and advice of error.json, where it was written after `since`."""
    path = folder / "error.json"
    written = mtime(path)
    if written is None or written < since:
        return None
    try:
        content = json.loads(path.read_text())
        return str(content["error"]), str(content.get("advice", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{path} cannot be read; the log may say more", ""


def beat_of(folder: Path, since: float) -> dict[str, Any] | None:
    """The heartbeat, where this attempt wrote it; one of an earlier attempt says nothing about this one."""
    if (mtime(folder / HEARTBEAT) or 0.0) < max(since, started(folder) or 0.0):
        return None
    beat = read_heartbeat(folder)
    keys = {"done", "total", "unit", "rate", "eta_s", "time"}
    return beat if isinstance(beat, dict) and keys <= beat.keys() else None


def result_of(folder: Path) -> tuple[float | None, str]:
    """How long a finished task took, by the launcher's figure, which counts start-up, else by its own; and its
    rows, such as `1,204 rows, 31 dropped`."""
    manifest, usage = (_json(folder / name) for name in ("manifest.json", "usage.json"))
    seconds = usage.get("seconds", manifest.get("seconds"))
    words = [] if manifest.get("rows_out") is None else [f"{manifest['rows_out']:,} rows"]
    if dropped := sum((manifest.get("dropped") or {}).values()):
        words.append(f"{dropped:,} dropped")
    return seconds, ", ".join(words)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
