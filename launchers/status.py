"""Show what a run is at: `python launchers/status.py <run folder or run name> [--watch] [--json]`.

One line per stage: state, jobs, nodes, time, progress from the stage's own heartbeat, retries; below, what went wrong
and how to go on. Works from the run's files, and from squeue and sacct where its jobs are Slurm's.
Exit codes: 0, whatever the run's state; 2 the folder is not a run.
"""

import argparse
import json
import sys
import time
from pathlib import Path

# `python launchers/status.py` puts launchers/ first on the path, where a file could shadow a library
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from launchers.following import run_status, status_table
from launchers.following.find_run import command, find_run
from launchers.following.run_status import RunStatus
from launchers.slurm.tasks import Queue
from launchers.submit_host.remote_run import elsewhere

FILES_INTERVAL_S = 2.0
SLURM_INTERVAL_S = 15.0
"""A controller serves the whole cluster: nobody should ask it every two seconds."""
PLAIN_INTERVAL_S = 10.0


class Watched:
    """A run that is looked at again and again: Slurm is asked less often than files are read."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.queue = Queue()
        self.asked = -SLURM_INTERVAL_S

    def look(self) -> RunStatus:
        due = time.monotonic() - self.asked >= SLURM_INTERVAL_S
        seen = run_status.look(self.run_dir, self.queue, ask_slurm=due)
        if due:
            self.asked = time.monotonic()
        return run_status.status(seen)


def text(run: RunStatus, width: int | None) -> Group:
    return Group(*(Text(line, style=style) for line, style in status_table.lines(run, width)))


def show(run: RunStatus, console: Console) -> None:
    if console.is_terminal:
        console.print(text(run, console.width))
        return
    for line, _ in status_table.lines(run, None):
        print(line)


def watch(watched: Watched, console: Console) -> None:
    """Until nothing runs or waits any more, or Ctrl-C."""
    if not console.is_terminal:
        _watch_plainly(watched)
        return
    run = watched.look()
    with Live(text(run, console.width), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while not run.over:
            time.sleep(FILES_INTERVAL_S)
            run = watched.look()
            live.update(text(run, console.width), refresh=True)


def _watch_plainly(watched: Watched) -> None:
    """Without a terminal: the whole status first, then the lines that changed, with the time."""
    before: set[str] = set()
    while True:
        run = watched.look()
        for line, _ in status_table.lines(run, None):
            if line not in before:
                print(f"{time.strftime('%H:%M:%S')} {line}" if before else line, flush=True)
        before = {line for line, _ in status_table.lines(run, None)}
        if run.over:
            return
        time.sleep(PLAIN_INTERVAL_S)


def main() -> int:
    parser = argparse.ArgumentParser(prog="launchers/status.py", description="What a run is at.")
    parser.add_argument("run", help="a run folder, or the name of one below RUNS_DIR (default: runs)")
    parser.add_argument("--watch", action="store_true", help="keep showing it until nothing runs or waits any more")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    args = parser.parse_args()
    if args.json and args.watch:
        raise ValueError("--json prints once; without --watch")
    folder = find_run(args.run)
    if (code := elsewhere(folder, args)) is not None:
        return code
    watched = Watched(folder)
    console = Console(highlight=False)
    if args.watch:
        watch(watched, console)
    elif args.json:
        print(json.dumps(watched.look().as_json(), indent=2))
    else:
        show(watched.look(), console)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
