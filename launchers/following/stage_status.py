"""One row of a run's status: a stage or a variant, from what its files and its jobs say.

States: done, running, pending, requeued, waiting, failed, cancelled, stopped, unknown, not started.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from launchers.following import run_state
from launchers.following.run_state import StageFiles
from launchers.slurm.jobs import Job

ORDER = (
    "running",
    "requeued",
    "pending",
    "failed",
    "cancelled",
    "stopped",
    "unknown",
    "waiting",
    "not started",
    "done",
)
"""The state of a row of several tasks is the first of these that one of them has."""
BAD = {"failed", "cancelled", "stopped", "unknown"}
OVER = BAD | {"not started", "done"}
MAX_VARIANT_ROWS = 12


class TaskState(NamedTuple):
    state: str
    reason: str = ""
    """Beside the state: what Slurm says a job waits for, or which stage."""
    job: Job | None = None
    error: str = ""
    advice: str = ""
    since: float = 0.0
    """When this attempt could first have written something, by the file system's clock."""


@dataclass
class Row:
    stage: str
    part: str
    """The variant; empty: the whole stage."""
    state: str
    reason: str
    jobs: list[str]
    nodes: list[str]
    elapsed_s: float | None
    tasks: dict[str, int]
    """State -> how many tasks of the row have it."""
    beat: dict[str, Any] | None = None
    """The newest heartbeat of a running task; of a stage of one task that was left half done, its last."""
    silent_s: float | None = None
    """How long the heartbeat is old."""
    rate: float | None = None
    """Rate in the row's own unit (see `unit`), per second."""
    eta_s: float | None = None
    unit: str = "tasks"
    result: str = ""
    """Rows of a finished stage of one task."""
    retries: int = 0
    error: str = ""
    advice: str = ""
    failed_parts: list[str] = field(default_factory=list)
    """The first few tasks that failed."""

    @property
    def num_tasks(self) -> int:
        return sum(self.tasks.values())


def rows(stage: StageFiles, tasks: Sequence[TaskState], jobs: list[str]) -> list[Row]:
    """One row, or one per variant where there are a few."""
    several = [[index] for index in range(len(tasks))]
    if stage.sharded or len(tasks) > MAX_VARIANT_ROWS or len(tasks) == 1:
        several = [list(range(len(tasks)))]
    made = []
    for indices in several:
        row = _row(stage, tasks, indices, jobs)
        row.part = stage.parts[indices[0]] if len(several) > 1 else ""
        made.append(row)
    return made


def _row(stage: StageFiles, tasks: Sequence[TaskState], indices: list[int], jobs: list[str]) -> Row:
    counts = Counter(tasks[index].state for index in indices)
    state = next(name for name in ORDER if counts[name])
    first = next(index for index in indices if tasks[index].state == state)
    known = [job for index in indices if (job := tasks[index].job)]
    running = [index for index in indices if tasks[index].state == "running"]
    row = Row(
        stage.name, "", state, tasks[first].reason, jobs,
        nodes=sorted({job.nodes for index in running or indices if (job := tasks[index].job) and job.nodes}),
        elapsed_s=_elapsed(stage, tasks, indices, state),
        tasks={name: counts[name] for name in ORDER if counts[name]},
        retries=sum(job.restarts for job in known),
    )  # fmt: skip
    if state == "done" and len(indices) == 1:
        row.result = run_state.result_of(stage.task_folder(first))[1]
    _add_progress(row, stage, tasks, indices, running)
    _add_error(row, stage, tasks, indices)
    return row


def _elapsed(stage: StageFiles, tasks: Sequence[TaskState], indices: list[int], state: str) -> float | None:
    """Time of one task's last attempt; for several, from the first one's start to the last one's end, or to now."""
    if state in ("not started", "waiting", "unknown"):
        return None
    index = indices[0]
    job, folder = tasks[index].job, stage.task_folder(index)
    if len(indices) == 1:
        if job is not None and state != "done":
            return job.elapsed_s or None
        if state == "done":
            return run_state.result_of(folder)[0]
    starts = [job.start for task in indices if (job := tasks[task].job) and job.start and job.state != "PENDING"]
    started = min(starts, default=run_state.started(folder))
    if started is None:
        return None
    if state not in OVER:
        return max(0.0, time.time() - started)
    ends = [job.end for task in indices if (job := tasks[task].job) and job.end]
    ends += [at for task in indices if (at := stage.done_at[task])]
    return max(0.0, max(ends, default=run_state.activity(folder)) - started)


def _add_progress(
    row: Row, stage: StageFiles, tasks: Sequence[TaskState], indices: list[int], running: list[int]
) -> None:
    beats = [beat for index in running if (beat := run_state.beat_of(stage.task_folder(index), tasks[index].since))]
    if beats:
        row.beat = max(beats, key=lambda beat: beat["time"])
        silent = max(0.0, time.time() - row.beat["time"])
        row.silent_s = min(silent, row.elapsed_s) if row.elapsed_s else silent
    if len(indices) == 1:
        if row.beat:
            row.rate, row.eta_s, row.unit = row.beat["rate"], row.beat["eta_s"], row.beat["unit"]
        elif row.state in BAD:
            row.beat = run_state.beat_of(stage.task_folder(indices[0]), tasks[indices[0]].since)
        return
    if row.state != "running" or not row.elapsed_s:
        return
    since = time.time() - row.elapsed_s
    finished = sum(1 for index in indices if (stage.done_at[index] or 0.0) >= since and tasks[index].state == "done")
    if finished:
        row.rate = finished / row.elapsed_s
        row.eta_s = (row.num_tasks - row.tasks.get("done", 0)) / row.rate


def _add_error(row: Row, stage: StageFiles, tasks: Sequence[TaskState], indices: list[int]) -> None:
    troubled = [index for index in indices if tasks[index].state == "failed"]
    row.failed_parts = [stage.parts[index] for index in troubled[:5] if stage.parts[index]]
    telling = troubled or [index for index in indices if tasks[index].error or tasks[index].advice]
    if telling:
        row.error, row.advice = tasks[telling[0]].error, tasks[telling[0]].advice
