"""The tasks of stages that a launcher runs on its own machine (local, docker, enroot): from files and locks alone."""

import time
from dataclasses import dataclass
from pathlib import Path

from launchers.following import launcher_record, run_state
from launchers.following.launcher_record import Record
from launchers.following.run_state import StageFiles
from launchers.following.stage_status import TaskState

FRESH_S = 120.0


@dataclass(frozen=True)
class Launch:
    """What is known of the launcher, and how far it has come."""

    record: Record | None
    alive: bool
    stopping: bool
    """cancel.py has asked it to stop."""
    current: str = ""
    """The stage it is at, or was at when it ended."""

    @property
    def since(self) -> float:
        return self.record.started if self.record else 0.0

    @property
    def elsewhere(self) -> bool:
        """It may run on another host, which cannot be asked."""
        return self.record is not None and self.record.ended is None and not launcher_record.is_here(self.record)

    def has_todo(self, stage: str) -> bool:
        return self.record is not None and stage in self.record.todo

    def is_past(self, stage: str) -> bool:
        """Whether it went through this stage and on to the next."""
        if self.record is None or not self.has_todo(stage) or not self.has_todo(self.current):
            return False
        return self.record.todo.index(stage) < self.record.todo.index(self.current)


def launch_of(run_dir: Path, record: Record | None, stages: list[StageFiles]) -> Launch:
    alive = launcher_record.is_alive(run_dir, record)
    stopping = record is not None and launcher_record.asked_to_stop(run_dir, record)
    return Launch(record, alive, stopping, _current(record, stages) if record else "")


def _current(record: Record, stages: list[StageFiles]) -> str:
    """A launcher takes its stages in order, so it is at the last one that shows traces of this launch."""
    todo = [stage for stage in stages if stage.name in record.todo]
    for stage in reversed(todo):
        if any(_touched(stage, index, record.started) for index in range(len(stage.parts))):
            return stage.name
    return todo[0].name if todo else ""


def _touched(stage: StageFiles, index: int, since: float) -> bool:
    return (stage.done_at[index] or 0.0) >= since or run_state.activity(stage.task_folder(index)) >= since


def task_states(launch: Launch, stage: StageFiles) -> list[TaskState]:
    states = [_state(launch, stage, index) for index in range(len(stage.parts))]
    record = launch.record
    # the launcher knows of errors that no error.json tells: a server that died, a rank killed from outside
    if record and record.error and stage.name == launch.current:
        for index, part in enumerate(stage.parts):
            name = f"{stage.name}/{part}" if part else stage.name
            if record.error.startswith(f"{name}: ") and states[index].state != "done":
                message = states[index].error or record.error.removeprefix(f"{name}: ")
                states[index] = states[index]._replace(state="failed", error=message)
    return states


def _state(launch: Launch, stage: StageFiles, index: int) -> TaskState:
    done_at, folder = stage.done_at[index], stage.task_folder(index)
    fresh = done_at is not None and done_at >= launch.since
    if fresh or (done_at is not None and (not launch.has_todo(stage.name) or launch.is_past(stage.name))):
        return TaskState("done")
    if not launch.has_todo(stage.name):
        return _left(launch, stage, folder, 0.0)
    if launch.alive:
        return _goes_on(launch, stage, index)
    if launch.elsewhere:
        return _seen_from_afar(launch, folder, done_at)
    if done_at is not None and run_state.activity(folder) < launch.since:
        return TaskState("done")
    return _left(launch, stage, folder, launch.since)


def _goes_on(launch: Launch, stage: StageFiles, index: int) -> TaskState:
    folder = stage.task_folder(index)
    if stage.name != launch.current:
        return TaskState("waiting", launch.current)
    if launcher_record.is_locked(folder) or len(stage.parts) == 1:
        return TaskState("running", "stopping" if launch.stopping else "", since=launch.since)
    # with an older _DONE it is up to date, or its turn is yet to come: only the launcher knows
    return TaskState("done" if stage.done_at[index] is not None else "pending")


def _seen_from_afar(launch: Launch, folder: Path, done_at: float | None) -> TaskState:
    assert launch.record is not None, "only a recorded launcher is elsewhere"
    beat = run_state.beat_of(folder, launch.since)
    if beat and time.time() - beat["time"] < FRESH_S:
        return TaskState("running", f"as seen from here; launched on {launch.record.host}", since=launch.since)
    if done_at is not None:
        return TaskState("done")
    if run_state.activity(folder) < launch.since:
        return TaskState("waiting", launch.current) if launch.current else TaskState("unknown")
    return TaskState("unknown", f"ask on {launch.record.host}, where it was launched")


def _left(launch: Launch, stage: StageFiles, folder: Path, since: float) -> TaskState:
    """A task without _DONE that nothing works on."""
    if (message := run_state.error_of(folder, since)) is not None:
        return TaskState("failed", error=message[0], advice=message[1])
    active = run_state.activity(folder)
    if active == 0.0 or active < since:
        return TaskState("not started")
    if launch.stopping or (launch.record and launch.record.interrupted):
        return TaskState("cancelled")
    gone = launch.record is not None and launch.record.ended is None and launch.has_todo(stage.name)
    return TaskState("stopped", "the launcher is gone" if gone else "")
