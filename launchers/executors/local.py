"""This machine: every task's processes as children of the launcher, in the environment it runs in itself.

Ctrl-C (or SIGTERM) stops everything that was started, and so does the launcher's own death.
"""

import os
import sys
from dataclasses import dataclass

from launchers.here import one_machine
from launchers.here.display import Display
from launchers.here.one_machine import Machine
from launchers.here.processes import Command, Place, Runtime, rank_variables, tuning
from launchers.planning import preflight
from launchers.planning.plan import PlannedStage, Task
from launchers.planning.preflight import Findings
from recipes.stage import Process


@dataclass(kw_only=True)
class Config(Machine):
    executor: str = "local"


@dataclass(frozen=True)
class Bare(Runtime):
    """Processes with this environment and this interpreter."""

    config: Config

    def command(self, stage: PlannedStage, task: Task, process: Process, place: Place) -> Command:
        argv = [sys.executable, *process.argv[1:]] if process.argv[0] == "python" else process.argv
        env = {**os.environ, **self.config.env, "LAUNCHER_PID": str(os.getpid())}
        env["CUDA_VISIBLE_DEVICES"] = ",".join(
            place.devices
        )  # none: a stage without GPUs must not find this machine's
        return Command(argv, env | tuning(env, place.devices) | rank_variables(process, place))

    def clear(self, task: Task) -> None:
        """Nothing outlives the processes that were started."""


def check(config: Config, stages: list[PlannedStage]) -> None:
    """Raises ValueError when this machine lacks the GPUs or the nodes a stage needs, or has not got its models or data."""
    one_machine.check_size(config, stages)
    found = Findings()
    preflight.look_at_paths(found, stages, None)
    found.refuse()


def submit(config: Config, stages: list[PlannedStage], display: Display) -> None:
    """Run the stages in order.

    Raises:
        TaskFailed: the first task that failed, with its last words; what it had done is kept for the rerun.
    """
    one_machine.run(config, stages, display, Bare(config))
