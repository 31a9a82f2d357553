"""The status of a whole run: what its files say, and Slurm where its jobs are."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launchers.following import launcher_record, local_tasks, run_state
from launchers.following.local_tasks import Launch
from launchers.following.run_state import StageFiles
from launchers.following.stage_status import OVER, Row, TaskState, rows
from launchers.here.display import duration
from launchers.slurm import tasks as slurm_tasks
from launchers.slurm.tasks import Queue, Submission

STALE_S = 600.0


@dataclass
class RunStatus:
    run_dir: Path
    executor: str
    launcher: str
    """About the launcher, in a line; empty where it does not matter any more."""
    slurm: str
    """Why Slurm was not heard; empty: it was, or was not needed."""
    rows: list[Row]

    @property
    def over(self) -> bool:
        """Nothing runs or waits any more."""
        states = {row.state for row in self.rows}
        return states <= OVER and states != {"not started"}

    def as_json(self) -> dict[str, Any]:
        return {
            "run": str(self.run_dir),
            "executor": self.executor,
            "launcher": self.launcher,
            "slurm_failure": self.slurm or None,
            "over": self.over,
            "stages": [asdict(row) for row in self.rows],
        }


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment, task by task."""

    run_dir: Path
    stages: list[StageFiles]
    launch: Launch
    submissions: dict[str, Submission]
    """Submissions of the stages that run on Slurm."""
    queue: Queue
    tasks: dict[str, list[TaskState]]


def look(run_dir: Path, queue: Queue | None = None, ask_slurm: bool = True) -> Snapshot:
    """Read the files and ask Slurm; with `ask_slurm=False` take what `queue` knows from before.

    Raises:
        ValueError: the run's jobs.json is damaged.
    """
    queue = queue or Queue()
    record = launcher_record.read(run_dir)
    jobs = run_state.read_jobs(run_dir)
    stages = run_state.stages(run_dir, record, jobs)
    launch = local_tasks.launch_of(run_dir, record, stages)
    by_slurm = record is None or record.executor == "slurm"
    submissions = {
        stage.name: Submission.of(jobs[stage.name])
        for stage in stages
        if stage.name in jobs and (by_slurm or not launch.has_todo(stage.name))
    }
    if ask_slurm:
        queue.ask(stages, submissions)
    stage_of = {job: name for name, each in submissions.items() for job in each.jobs}
    tasks = {
        stage.name: slurm_tasks.task_states(stage, submissions.get(stage.name), queue, stage_of)
        if stage.name in submissions or (record is not None and record.executor == "slurm")
        else local_tasks.task_states(launch, stage)
        for stage in stages
    }
    return Snapshot(run_dir, stages, launch, submissions, queue, tasks)


def status(seen: Snapshot) -> RunStatus:
    made: list[Row] = []
    for stage in seen.stages:
        submission = seen.submissions.get(stage.name)
        made += rows(stage, seen.tasks[stage.name], submission.jobs if submission else [])
    _explain(made, seen)
    record = seen.launch.record
    executor = record.executor if record else "slurm" if seen.submissions else ""
    launcher = _launcher(seen.launch)
    if record and record.error and all(row.state != "failed" for row in made):
        launcher += f": {record.error}"
    return RunStatus(seen.run_dir, executor, launcher, seen.queue.failure, made)


def _explain(made: list[Row], seen: Snapshot) -> None:
    """What a stage's own tasks do not tell: which failure kept it from running, that its heartbeat has stopped, and the
    last words of one that failed without an error.json."""
    bad = {row.stage: row.state for row in made if row.state in ("failed", "cancelled")}
    stage_of = {job: name for name, each in seen.submissions.items() for job in each.jobs}
    for row in made:
        submission = seen.submissions.get(row.stage)
        if row.state == "cancelled" and submission:
            causes = dict.fromkeys(stage_of[job] for job in submission.after if stage_of.get(job) in bad)
            row.reason = ", ".join(f"{name} {bad[name]}" for name in causes)
        if row.state == "running" and row.silent_s is not None and row.silent_s > STALE_S:
            row.error = row.error or f"no heartbeat for {duration(row.silent_s)}: it may hang"


def _launcher(launch: Launch) -> str:
    record = launch.record
    if record is None:
        return ""
    who = f"pid {record.pid} on {record.host}"
    if launch.alive:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started))
        return f"{who}, {'is stopping everything it started' if launch.stopping else f'running since {since}'}"
    if launch.elsewhere:
        return f"{who}, which is another host: whether it still runs can be asked there"
    if record.ended is None:
        return f"{who}, gone without a word (killed, or the machine went down); the same command goes on"
    if record.executor == "slurm" and not record.error and not record.interrupted:
        return ""
    how = "interrupted" if record.interrupted else "ended with an error" if record.error else "done"
    return f"{who}, {how} {duration(max(0.0, time.time() - record.ended))} ago"
