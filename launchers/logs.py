"""A stage's log: `python launchers/logs.py <run> <stage> [--task shard_3] [--process server-0] [--follow] [--errors]`.

Without --task and --process the log that tells most: of a failed task the one that failed first, else the newest of a
running task, else the newest. Logs are in <run>/<stage>[/<task>]/logs; a job's own is slurm-<job>.log.
Exit codes: 0; 2 there is no such run, stage, task or log.
"""

import argparse
import sys
import time
from pathlib import Path

# `python launchers/logs.py` puts launchers/ first on the path, where a file could shadow a library
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from launchers.following import log_files, run_status
from launchers.following.find_run import command, find_run
from launchers.following.log_files import Follower, Log
from launchers.following.run_state import StageFiles
from launchers.following.run_status import Snapshot
from launchers.here.display import duration
from launchers.slurm.tasks import Queue, job_log
from launchers.submit_host.remote_run import elsewhere

NAMES_SHOWN = 12
LOGS_READ = 64
"""A failed training of 256 ranks has as many logs; the first to end badly is among the oldest."""


def choose_stage(seen: Snapshot, name: str) -> StageFiles:
    found = next((stage for stage in seen.stages if stage.name == name), None)
    if found is None:
        raise ValueError(f"no stage {name!r} in {seen.run_dir}; it has: {', '.join(s.name for s in seen.stages)}")
    return found


def choose_task(seen: Snapshot, stage: StageFiles, name: str | None) -> list[int]:
    """The task asked for, else the first that failed, else those that run, else all that may have logs."""
    if name is not None:
        if name not in stage.parts:
            raise ValueError(f"no task {name!r} of stage {stage.name}; {_tasks(stage)}")
        return [stage.parts.index(name)]
    states = [task.state for task in seen.tasks[stage.name]]
    for wanted in ("failed", "running", "stopped", "cancelled", "unknown"):
        indices = [index for index, state in enumerate(states) if state == wanted]
        if indices:
            return indices[:1] if wanted == "failed" else indices[:LOGS_READ]
    done = [(at, index) for index, at in enumerate(stage.done_at) if at is not None]
    return [max(done)[1]] if done else list(range(len(stage.parts)))[:LOGS_READ]


def _tasks(stage: StageFiles) -> str:
    if stage.parts == [""]:
        return "the stage is one task: leave --task out"
    if stage.sharded:
        return f"it has {stage.parts[0]} to {stage.parts[-1]}"
    return f"it has: {', '.join(stage.parts[:NAMES_SHOWN])}{', ...' if len(stage.parts) > NAMES_SHOWN else ''}"


def find_logs(seen: Snapshot, stage: StageFiles, tasks: list[int]) -> list[Log]:
    """Newest first."""
    found = log_files.of_stage(stage, tasks)
    submission = seen.submissions.get(stage.name)
    if submission and stage.parts != [""]:  # those of arrays are all in the stage's own folder
        for task in tasks:
            found += log_files.of_job(job_log(stage.folder, *submission.place(task)), task)
    return sorted(found, key=lambda log: -log.mtime)


def choose_log(seen: Snapshot, stage: StageFiles, logs: list[Log], process: str | None) -> Log:
    if process is not None:
        named = [log for log in logs if process in (log.process, log.process.split("-")[0])]
        if not named:
            processes = list(dict.fromkeys(log.process for log in logs))
            more = ", ..." if len(processes) > NAMES_SHOWN else ""
            raise ValueError(
                f"no log of process {process!r} in stage {stage.name}; there are: "
                f"{', '.join(processes[:NAMES_SHOWN])}{more}"
            )
        return named[0]
    states = seen.tasks[stage.name]
    failed = [log for log in logs if states[log.task].state == "failed"]
    if failed:
        return log_files.most_telling(failed[:LOGS_READ])
    # the job's own log says little while its processes have logs of their own
    return min(logs, key=lambda log: (log.bytes == 0, log.process.startswith("slurm-")))


def title(stage: StageFiles, log: Log, logs: list[Log]) -> str:
    task = f"{stage.parts[log.task]}: " if stage.parts[log.task] else ""
    others = [other.process for other in logs if other.task == log.task and other != log]
    more = ", ..." if len(others) > NAMES_SHOWN else ""
    also = f"; also: {', '.join(others[:NAMES_SHOWN])}{more}" if others else ""
    ago = duration(max(0.0, time.time() - log.mtime))
    return f"==> {task}{log.path} ({log.bytes:,} bytes, written {ago} ago{also})"


def wait_for_logs(run_dir: Path, args: argparse.Namespace, queue: Queue) -> tuple[StageFiles, list[Log]]:
    """With --follow, a stage that has not started is waited for.

    Raises:
        ValueError: there is nothing to show, and --follow was not asked for.
    """
    announced = False
    while True:
        seen = run_status.look(run_dir, queue, ask_slurm=not announced)
        stage = choose_stage(seen, args.stage)
        logs = find_logs(seen, stage, choose_task(seen, stage, args.task))
        if logs:
            chosen = choose_log(seen, stage, logs, args.process)
            return stage, [chosen, *(log for log in logs if log != chosen)]
        row = run_status.status(seen).rows
        states = sorted({each.state for each in row if each.stage == stage.name})
        message = f"stage {stage.name} ({', '.join(states)}) has no logs yet"
        if not args.follow:
            raise ValueError(f"{message}; --follow waits for them")
        if not announced:
            print(f"{message}: waiting for them", file=sys.stderr)
            announced = True
        time.sleep(log_files.POLL_S)


def show(stage: StageFiles, logs: list[Log], args: argparse.Namespace) -> None:
    log = logs[0]
    print(title(stage, log, logs), file=sys.stderr)
    end = log_files.end_of_lines(log.path) if args.follow else None  # what comes after it is the follower's to tell
    follower = Follower(log.path, end or 0)
    lines = log_files.errors(log.path, args.lines) if args.errors else log_files.tail(log.path, args.lines, end)
    if args.errors and not lines:
        print("no line of it looks like an error", file=sys.stderr)
    for line in lines:
        print(line, flush=args.follow)
    if args.follow:
        for line in follower:
            print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="launchers/logs.py", description="The log of a stage that tells most.")
    parser.add_argument("run", help="a run folder, or the name of one below RUNS_DIR (default: runs)")
    parser.add_argument("stage", help="a stage of it; launchers/status.py lists them")
    parser.add_argument("--task", help="a shard or variant, such as shard_3")
    parser.add_argument("--process", help="main, main-<rank>, server-<replica>, ..., or slurm for the job's own log")
    parser.add_argument("--follow", action="store_true", help="go on with what is written to it, until Ctrl-C")
    parser.add_argument("--lines", type=int, default=50, help="how many of its last lines (default: 50)")
    parser.add_argument("--errors", action="store_true", help="only lines that look like errors, and tracebacks")
    args = parser.parse_args()
    folder = find_run(args.run)
    if (code := elsewhere(folder, args)) is not None:
        return code
    stage, logs = wait_for_logs(folder, args, Queue())
    show(stage, logs, args)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
