"""A Slurm cluster: one batch script per stage, submitted with its dependencies; the launcher does not wait.

Reads <run_dir>/<stage>/config.yaml on the nodes, so the run folder and this checkout are on a file system they share.
Writes <run_dir>/<stage>/submit.sh (launchers/slurm/sbatch.py makes its text) and <run_dir>/jobs.json:
    {"train": {"job": "4711", "jobs": ["4711"], "offsets": [0], "after": ["4710"], "array": "", "script": ".../submit.sh"}}
`array` are the tasks submitted. One beyond the cluster's MaxArraySize is in a later array of `jobs`: element i of jobs[k]
works in task offsets[k] + i. `job` is the first.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from launchers.here.display import Display
from launchers.planning.plan import PlannedStage
from launchers.slurm import job_arrays
from launchers.slurm import preflight as preflight_slurm
from launchers.slurm import site as slurm_site
from launchers.slurm.client import client
from launchers.slurm.config import Config
from launchers.slurm.sbatch import script
from launchers.slurm.site import recorded_jobs
from nemo_ext.records.files import write_json_atomic, write_text_atomic


def check(config: Config, stages: list[PlannedStage]) -> None:
    """Show what may go wrong, and refuse what would.

    Raises:
        Refused: these stages cannot be submitted here, or are already; every reason at once.
    """
    found = preflight_slurm.look(config, stages)
    found.show(Display())
    found.refuse()


def submit(config: Config, stages: list[PlannedStage], display: Display) -> None:
    """Submit the stages that are not done and return; each waits for those it is `after`.

    Raises:
        ValueError: Slurm refused one; those submitted before it are cancelled.
    """
    jobs: dict[str, list[str]] = {}
    max_array_size = slurm_site.settings().max_array_size if any(len(stage.tasks) > 1 for stage in stages) else None
    try:
        for stage in stages:
            after = [job for other in stage.after for job in jobs.get(other, [])]
            # what comes after a stage that runs may see other inputs, so it runs too
            if not after and stage.why_not_done() is None:
                display.done_before(stage.name, [task.folder for task in stage.tasks])
                continue
            jobs[stage.name] = []
            _submit_stage(config, stage, after, max_array_size, jobs[stage.name])
            waits = f", after {', '.join(after)}" if after else ""
            display.line(f"{stage.name:<18} job {', '.join(jobs[stage.name])}{waits}  {stage.folder}/logs")
    except BaseException as error:
        _cancel([job for each in jobs.values() for job in each], error)
        raise
    if jobs:
        display.line(f"follow it: python launchers/status.py {stages[0].folder.parent} --watch")


def _submit_stage(
    config: Config, stage: PlannedStage, after: list[str], max_array_size: int | None, jobs: list[str]
) -> None:
    """Adds its jobs to `jobs`: one, or several arrays where it has more tasks than an array may have."""
    folder = stage.folder
    path = folder / "submit.sh"
    (folder / "logs").mkdir(parents=True, exist_ok=True)  # Slurm opens the job's log before the script runs
    write_text_atomic(path, script(config, stage, max_array_size))
    tasks = [index for index, task in enumerate(stage.tasks) if after or task.why_not_done()]
    arrays = job_arrays.split(tasks, max_array_size)
    for each in arrays:
        # one array after another: together they would run more than max_parallel_tasks at once
        waits = [f"afterok:{':'.join(after)}"] * bool(after) + [f"afterany:{jobs[-1]}" for _ in jobs[-1:]]
        options = ["--parsable"]
        options += [f"--dependency={','.join(waits)}", "--kill-on-invalid-dep=yes"] if waits else []
        options += [f"--array={each.elements}%{config.max_parallel_tasks}"] if len(stage.tasks) > 1 else []
        words = [str(path), *([str(each.offset)] if each.offset else [])]
        with _uninterrupted():
            jobs.append(client(["sbatch", *options, *words]).strip().split(";")[0])
    record = {
        "job": jobs[0],
        "jobs": jobs,
        "offsets": [each.offset for each in arrays],
        "after": after,
        "array": job_arrays.ranges(tasks) if len(stage.tasks) > 1 else "",
        "script": str(path),
    }
    write_json_atomic(folder.parent / "jobs.json", recorded_jobs(folder.parent) | {stage.name: record})


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C, given once or often, waits for the end of the block: a job must be known, to be cancelled, and then be."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    # blocked for the clients, which inherit that and get a terminal's Ctrl-C too; noted here, as another thread may get it
    handlers = {number: signal.signal(number, lambda got, _: received.append(got)) for number in numbers}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if received:
            signal.raise_signal(received[0])


def _cancel(jobs: list[str], why: BaseException) -> None:
    """Raises ValueError when they cannot be cancelled, with the reason for which they should be."""
    try:
        if jobs:
            with _uninterrupted():
                client(["scancel", *jobs])
    except ValueError as error:
        raise ValueError(f"{why}; and {error}: when it answers again, scancel {' '.join(jobs)}") from why
