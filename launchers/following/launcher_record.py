"""<run>/launcher.json: which process runs a run folder, with which executor, which stages, and how it ended.

    {"pid": 4711, "host": "login1", "process_started": 1795288202.1, "started": 1795288203.5, "executor": "local",
     "stages": {"solve": {"after": ["prepare"], "parts": [], "shards": 5000}}, "todo": ["solve"],
     "ended": null, "error": null, "interrupted": false}

Written when a launcher begins and when it ends; one that was killed leaves "ended": null behind. Read by status.py,
logs.py and cancel.py. <run>/cancel.json says which launcher cancel.py has asked to stop.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from nemo_ext.records.files import write_json_atomic

if TYPE_CHECKING:
    from launchers.planning.plan import PlannedStage

RECORD, CANCEL, LOCK = "launcher.json", "cancel.json", ".lock"
ERROR_CHARACTERS = 4000
CLOCK_S = 2.0


@dataclass(kw_only=True)
class Record:
    pid: int
    host: str
    process_started: float
    """When the process began, by this host's clock: a pid alone may be another process's by now."""
    started: float
    """When the launch began, by the file system's clock, to compare with files' times."""
    executor: str
    stages: dict[str, dict[str, Any]]
    """All stages of the recipe in order: `after`, and `parts` (variants) or a number of `shards`."""
    todo: list[str]
    """Stages that this launch runs or submits; it took the others as they were."""
    ended: float | None = None
    error: str | None = None
    interrupted: bool = False


@contextmanager
def recorded(run_dir: Path, executor: str, stages: "list[PlannedStage]", todo: "list[PlannedStage]") -> Iterator[None]:
    """Say in the run folder, whose lock the caller holds, that this process is at work there, and later how it ended."""
    record = Record(
        pid=os.getpid(),
        host=socket.gethostname(),
        process_started=psutil.Process().create_time(),
        started=(run_dir / LOCK).stat().st_mtime,
        executor=executor,
        stages={stage.name: _parts(stage) for stage in stages},
        todo=[stage.name for stage in todo],
    )
    write_json_atomic(run_dir / RECORD, asdict(record))
    try:
        yield
    except KeyboardInterrupt:
        record.interrupted = True
        raise
    except Exception as error:
        record.error = str(error)[:ERROR_CHARACTERS]
        raise
    finally:
        record.ended = time.time()
        with suppress(OSError):  # a full disk must not hide why the launch ended
            write_json_atomic(run_dir / RECORD, asdict(record))


def _parts(stage: "PlannedStage") -> dict[str, Any]:
    parts = [task.part for task in stage.tasks if task.part]
    sharded = bool(parts) and parts[0].startswith("shard_")
    return {"after": stage.after, "parts": [] if sharded else parts, "shards": len(parts) if sharded else 0}


def read(run_dir: Path) -> Record | None:
    """None where there is no record, or none that can be understood."""
    try:
        record = Record(**json.loads((run_dir / RECORD).read_text()))
        whole = all(isinstance(about, dict) for about in record.stages.values()) and isinstance(record.todo, list)
        return record if whole else None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def is_here(record: Record) -> bool:
    return record.host == socket.gethostname()


def is_alive(run_dir: Path, record: Record | None) -> bool:
    """Whether the recorded launcher still runs on this host: that very process, and holding the run folder's lock."""
    if record is None or not is_here(record):
        return False
    try:
        began = psutil.Process(record.pid).create_time()
    except psutil.Error:
        return False
    return abs(began - record.process_started) < CLOCK_S and is_locked(run_dir)


def is_locked(folder: Path) -> bool:
    """Whether a process holds `<folder>/.lock`. Ask of a run folder only while its launcher is there: a launcher that
    starts in the instant of asking would be refused."""
    try:
        with (folder / LOCK).open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def ask_to_stop(run_dir: Path, record: Record) -> None:
    write_json_atomic(run_dir / CANCEL, {"pid": record.pid, "process_started": record.process_started})


def asked_to_stop(run_dir: Path, record: Record) -> bool:
    """Whether cancel.py has asked this launcher before: a second signal would break into its stopping."""
    try:
        asked = json.loads((run_dir / CANCEL).read_text())
        return (asked["pid"], asked["process_started"]) == (record.pid, record.process_started)
    except (OSError, ValueError, KeyError, TypeError):
        return False
