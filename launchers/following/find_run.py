"""Find the folder that a run's name or path means; the exit codes of the commands that follow runs."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from launchers.following.launcher_record import RECORD
from launchers.submit_host.remote_run import REMOTE

SHOWN = 10


def find_run(name: str) -> Path:
    """The run folder called `name`: a path, or a name below RUNS_DIR (default: runs), as run.py makes them.

    Raises:
        ValueError: there is no such folder, or it holds no run.
    """
    below = Path(os.environ.get("RUNS_DIR", "runs")) / name
    candidates = [Path(name), below]
    for folder in candidates:
        if is_run(folder):
            return folder.absolute()
    found = next((folder for folder in candidates if folder.is_dir()), None)
    if found is not None:
        raise ValueError(f"{found} is not a run folder: no stage of it has a config.yaml. {_runs(below.parent)}")
    raise ValueError(
        f"there is no run {name!r}: neither {candidates[0]} nor {below} is a folder. {_runs(below.parent)}"
    )


def is_run(folder: Path) -> bool:
    try:
        return any((folder / name).is_file() for name in (RECORD, REMOTE)) or any(
            (entry / "config.yaml").is_file() or next(entry.glob("*/config.yaml"), None) for entry in _folders(folder)
        )
    except OSError:
        return False


def _folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]


def _runs(folder: Path) -> str:
    """The newest runs there are, for a message."""
    try:
        found = sorted((each for each in _folders(folder) if is_run(each)), key=lambda each: -each.stat().st_mtime)
    except OSError:
        found = []
    if not found:
        return f"{folder} (RUNS_DIR) holds no runs"
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{folder} (RUNS_DIR) holds: {', '.join(each.name for each in found[:SHOWN])}{more}"


def command(run: Callable[[], int]) -> int:
    """Run a command to its exit code. A user's mistake is one line on stderr and code 2; Ctrl-C, the way out of
    following, and a closed pipe are not errors."""
    try:
        return run()
    except ValueError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
