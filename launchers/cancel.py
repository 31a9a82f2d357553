"""Stop a run: `python launchers/cancel.py <run> [stage ...]`.

On Slurm its jobs that have not ended are cancelled, or those of the stages named and of all that wait for them. A run
on this machine is stopped as a whole: its launcher gets a signal, stops everything it started, and is waited for. What was
done is kept; the command that launched the run goes on from there. Giving the command twice does no harm.
Exit codes: 0 nothing of it runs any more; 1 Slurm did not answer, or the launcher has not ended yet; 2 no such run or stage.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

# `python launchers/cancel.py` puts launchers/ first on the path, where a file could shadow a library
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from launchers.following import launcher_record, run_status
from launchers.following.find_run import command, find_run
from launchers.following.launcher_record import Record
from launchers.following.run_status import Snapshot
from launchers.following.stage_status import TaskState
from launchers.here.display import duration
from launchers.slurm.client import client
from launchers.slurm.jobs import TIMEOUT_S
from launchers.slurm.tasks import BY_HAND
from launchers.submit_host.remote_run import elsewhere

WAIT_S = 120.0
POLL_S = 0.2
GO_ON = "What was done is kept: the command that launched it goes on from there."


def with_dependants(seen: Snapshot, names: list[str]) -> list[str]:
    """The stages named, or all, and those that wait for one of them, in the run's order.

    Raises:
        ValueError: no such stage.
    """
    known = [stage.name for stage in seen.stages]
    for name in names:
        if name not in known:
            raise ValueError(f"no stage {name!r} in {seen.run_dir}; it has: {', '.join(known)}")
    chosen = set(names or known)
    for stage in seen.stages:  # a stage comes after those it waits for
        if chosen & set(stage.after):
            chosen.add(stage.name)
    return [name for name in known if name in chosen]


def live_jobs(seen: Snapshot, stages: list[str]) -> dict[str, list[str]]:
    """Stage -> its jobs of which an element waits or runs."""
    found: dict[str, list[str]] = {}
    for name in stages:
        submission = seen.submissions.get(name)
        if submission is None:
            continue
        jobs = {submission.place(index)[0] for index, task in enumerate(seen.tasks[name]) if _goes_on(task)}
        if jobs:
            found[name] = [job for job in submission.jobs if job in jobs]
    return found


def _goes_on(task: TaskState) -> bool:
    return task.job is not None and not task.job.ended and task.job.state != "COMPLETING"


def tell_of_others(seen: Snapshot, stages: list[str]) -> None:
    """Jobs that a person submitted are that person's to cancel: their numbers are not known here."""
    for name in stages:
        if any(task.reason == BY_HAND for task in seen.tasks[name]):
            script = seen.run_dir / name / "submit.sh"
            print(
                f"{name} runs in a job that jobs.json does not name: look in squeue --me for {script}", file=sys.stderr
            )


def cancel_jobs(seen: Snapshot, names: list[str]) -> int:
    if seen.queue.failure:
        print(f"nothing was cancelled: {seen.queue.failure}", file=sys.stderr)
        return 1
    stages = with_dependants(seen, names)
    tell_of_others(seen, stages)
    found = live_jobs(seen, stages)
    if not found:
        print("nothing to cancel: none of the jobs that were launched waits or runs.")
        return 0
    try:
        client(["scancel", *(job for jobs in found.values() for job in jobs)], TIMEOUT_S)
    except ValueError as error:
        print(f"it is not known what was cancelled: {error}. Look with launchers/status.py", file=sys.stderr)
        return 1
    for name, jobs in found.items():
        print(f"cancelled {name}: job {', '.join(jobs)}")
    print(GO_ON)
    return 0


def stop_launcher(run_dir: Path, record: Record) -> int:
    """Tell the launcher to stop, once, and wait until it has."""
    again = launcher_record.asked_to_stop(run_dir, record)
    if not again:
        launcher_record.ask_to_stop(run_dir, record)
        os.kill(record.pid, signal.SIGTERM)
    what = "has had the signal before, and is still stopping" if again else "is stopping everything it started"
    print(f"the launcher (pid {record.pid}) {what} ...", flush=True)
    began = time.monotonic()
    while launcher_record.is_alive(run_dir, record):
        if time.monotonic() - began > WAIT_S:
            print(
                f"it has not ended in {duration(WAIT_S)}. Look with launchers/status.py; kill -9 {record.pid} ends it, "
                "and with it what it started",
                file=sys.stderr,
            )
            return 1
        time.sleep(POLL_S)
    print(f"stopped after {duration(time.monotonic() - began)}. {GO_ON}")
    return 0


def cancel(run_dir: Path, names: list[str]) -> int:
    seen = run_status.look(run_dir)
    record = seen.launch.record
    with_dependants(seen, names)
    if seen.launch.alive and record is not None:
        if names and not seen.submissions:
            raise ValueError("a run on this machine is stopped as a whole; leave the stages out")
        stopped = stop_launcher(run_dir, record)
        if stopped != 0 or not seen.submissions:
            return stopped
        seen = run_status.look(run_dir)  # a launcher that was submitting may have left jobs
    if seen.submissions:
        return cancel_jobs(seen, names)
    if seen.launch.elsewhere and record is not None:
        raise ValueError(f"it was launched on {record.host} (pid {record.pid}); give this command there")
    print("nothing to cancel: no launcher runs it.")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="launchers/cancel.py", description="Stop a run; what was done is kept.")
    parser.add_argument("run", help="a run folder, or the name of one below RUNS_DIR (default: runs)")
    parser.add_argument("stage", nargs="*", help="only these stages, and those that wait for them (Slurm)")
    args = parser.parse_args()
    folder = find_run(args.run)
    code = elsewhere(folder, args)
    return cancel(folder, args.stage) if code is None else code


if __name__ == "__main__":
    sys.exit(command(main))
