"""The tasks of stages that Slurm runs: from what squeue and sacct say, and, where they do not know, from files."""

import time
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launchers.following import run_state
from launchers.following.run_state import StageFiles
from launchers.following.stage_status import TaskState
from launchers.slurm import jobs as slurm_jobs
from launchers.slurm import states as slurm_states
from launchers.slurm.jobs import Elements, Job

FRESH_S = 120.0
HELD = {"REQUEUE_HOLD", "SPECIAL_EXIT"}
LATER_S = 10.0
"""A heartbeat so long after a job's end is not that job's, though the node's clock be a little ahead."""
FORGOTTEN = "Slurm has forgotten its job"
BY_HAND = "by its heartbeat, in a job that jobs.json does not name"


@dataclass(frozen=True)
class Submission:
    """A stage's record in jobs.json."""

    jobs: list[str]
    offsets: list[int]
    """Element i of jobs[k] works in task offsets[k] + i."""
    tasks: frozenset[int] | None
    """The tasks submitted; the others were done before. None: the stage is one task."""
    after: list[str]
    script: str

    @staticmethod
    def of(record: dict[str, Any]) -> "Submission":
        jobs = [str(job) for job in record.get("jobs") or [record["job"]]]
        array = str(record.get("array") or "")
        tasks = frozenset(index for index in slurm_jobs.elements(f"_{array}")[1] if index is not None)
        offsets = [int(offset) for offset in record.get("offsets") or [0] * len(jobs)]
        after = [str(job) for job in record.get("after") or []]
        return Submission(jobs, offsets, tasks if array else None, after, str(record.get("script") or ""))

    def place(self, task: int) -> tuple[str, int | None]:
        """The job and element that task runs as."""
        if self.tasks is None:
            return self.jobs[0], None
        which = max(0, bisect_right(self.offsets, task) - 1)
        return self.jobs[which], task - self.offsets[which]

    def known(self, found: dict[str, Elements], task: int) -> Job | None:
        number, element = self.place(task)
        job = found.get(number, {}).get(element)
        # numbers begin anew where a cluster is set up again: that job is another's
        return job if job and (not job.script or not self.script or job.script.split()[0] == self.script) else None


@dataclass
class Queue:
    """What Slurm knows of a run's jobs."""

    found: dict[str, Elements] = field(default_factory=dict)
    failure: str = ""
    """Why squeue says nothing, in one line."""
    has_accounts: bool = True
    """False once sacct has failed: there is no slurmdbd, or it does not answer."""

    def ask(self, stages: list[StageFiles], submissions: dict[str, Submission]) -> None:
        """One call of squeue, and one of sacct where jobs without results have left squeue."""
        self.found, self.failure = {}, ""
        if not submissions:
            return
        try:
            self.found = slurm_jobs.queue(_numbers(submissions))
        except ValueError as error:
            self.failure = str(error)
            return
        gone = {
            submissions[stage.name].place(index)[0]
            for stage in stages
            if stage.name in submissions
            for index in range(len(stage.parts))
            if _is_unaccounted(stage, index, submissions[stage.name], self.found)
        }
        if gone and self.has_accounts:
            try:
                accounts = slurm_jobs.accounts(sorted(gone))
            except ValueError:
                self.has_accounts = False
                return
            for number, elements in accounts.items():
                self.found[number] = elements | self.found.get(number, {})


def _numbers(submissions: dict[str, Submission]) -> list[str]:
    return [job for each in submissions.values() for job in each.jobs]


def _is_unaccounted(stage: StageFiles, index: int, submission: Submission, found: dict[str, Elements]) -> bool:
    if submission.tasks is not None and index not in submission.tasks:
        return False
    done_at = stage.done_at[index]
    return (done_at is None or done_at < stage.submitted) and submission.known(found, index) is None


def task_states(
    stage: StageFiles, submission: Submission | None, queue: Queue, stage_of: dict[str, str]
) -> list[TaskState]:
    """`stage_of`: job -> the stage it runs."""
    if submission is None:
        return [_unsubmitted(stage, index) for index in range(len(stage.parts))]
    waits_for = _waits_for(submission, queue, stage_of)
    return [_state(stage, index, submission, queue, waits_for) for index in range(len(stage.parts))]


def _unsubmitted(stage: StageFiles, index: int) -> TaskState:
    if stage.done_at[index] is not None:
        return TaskState("done")
    if _beats(stage, index, 0.0):
        return TaskState("running", BY_HAND)
    error = run_state.error_of(stage.task_folder(index), 0.0)
    return TaskState("failed", error=error[0], advice=error[1]) if error else TaskState("not started")


def _state(stage: StageFiles, index: int, submission: Submission, queue: Queue, waits_for: str) -> TaskState:
    if submission.tasks is not None and index not in submission.tasks:
        return _unsubmitted(stage, index)
    done_at = stage.done_at[index]
    done = done_at is not None and done_at >= stage.submitted
    job = submission.known(queue.found, index)
    if job is None:
        return TaskState("done") if done else _from_files(stage, index, queue)
    if job.ended:
        return _ended(stage, index, job, done)
    if done and job.state == "COMPLETING":
        return TaskState("done", job=job)
    return _alive(job, submission.place(index)[0], stage, waits_for)


def _waits_for(submission: Submission, queue: Queue, stage_of: dict[str, str]) -> str:
    unfinished = [
        other for other in submission.after if any(not job.ended for job in queue.found.get(other, {}).values())
    ]
    return ", ".join(dict.fromkeys(stage_of.get(other, f"job {other}") for other in unfinished)) or "its earlier tasks"


def _alive(job: Job, number: str, stage: StageFiles, waits_for: str) -> TaskState:
    advice = slurm_states.why_waits(job, number, stage.name)
    if job.state == "PENDING" and job.reason == "Dependency":
        return TaskState("waiting", waits_for, job)
    if job.state in HELD or (job.state == "PENDING" and job.restarts) or job.state == "REQUEUED":
        return TaskState("requeued", job.reason or ("" if job.state == "PENDING" else job.state), job, advice=advice)
    if job.state == "PENDING":
        return TaskState("pending", job.reason, job, advice=advice)
    reason = {"RUNNING": "", "COMPLETING": "ending"}.get(job.state, job.state.lower())
    return TaskState("running", reason, job, since=stage.submitted)


def _beats(stage: StageFiles, index: int, after: float) -> bool:
    """Whether a process works on the task now, by a heartbeat from after that moment; a person may have submitted it."""
    beat = run_state.beat_of(stage.task_folder(index), stage.submitted)
    return beat is not None and time.time() - beat["time"] < FRESH_S and beat["time"] > after


def _ended(stage: StageFiles, index: int, job: Job, done: bool) -> TaskState:
    if done:
        return TaskState("done", job=job)
    if _beats(stage, index, (job.end or time.time()) + LATER_S):
        return TaskState("running", BY_HAND, since=stage.submitted)
    if job.state == "COMPLETED":
        missing = f"its job is COMPLETED, but {stage.task_folder(index)}/_DONE is not here, or not yet"
        return TaskState("unknown", job=job, error=missing, advice="a shared file system may lag; see the logs")
    if job.state == "CANCELLED":
        return TaskState("cancelled", job=job)
    message, advice = slurm_states.end_of(job, stage.name)
    said = run_state.error_of(stage.task_folder(index), stage.submitted)
    if said is not None:
        text = said[0] if job.state == "FAILED" else f"{message}; {said[0]}"
        return TaskState("failed", "", job, text, said[1] or advice)
    return TaskState("failed", "", job, message, advice)


def _from_files(stage: StageFiles, index: int, queue: Queue) -> TaskState:
    """Slurm knows nothing of it, or does not answer."""
    folder = stage.task_folder(index)
    if (error := run_state.error_of(folder, stage.submitted)) is not None:
        return TaskState("failed", error=error[0], advice=error[1])
    if _beats(stage, index, 0.0):
        return TaskState("running", "by its heartbeat", since=stage.submitted)
    if queue.failure:
        return TaskState("unknown", "Slurm does not answer")
    return TaskState(
        "unknown",
        FORGOTTEN,
        error="how it ended is not known: there are no accounts (sacct) of it, and it left no _DONE",
    )


def job_log(folder: Path, job: str, element: int | None) -> Path:
    name = f"slurm-{job}.log" if element is None else f"slurm-{job}_{element}.log"
    return folder / "logs" / name
