"""Trainings that stand still where a test wants to find them, however fast or slow the machine is."""

import os
import time
from pathlib import Path
from typing import Any

import nemo_ext.megatron.train as training
from nemo_ext.megatron.runtime import mcore
from tests.nemo_ext.megatron import programs


def wait_after_a_step(argument: dict[str, Any]) -> list[Any]:
    """programs.train_runs; after step argument["step"] every rank waits until the file argument["until"] is there."""
    step = training.Trainer.step

    def stepping(self: training.Trainer, *args: Any) -> bool:
        stop = step(self, *args)
        while self.state.step == argument["step"] and not Path(argument["until"]).exists():
            time.sleep(0.01)
        return stop

    training.Trainer.step = stepping  # type: ignore[method-assign]
    return programs.train_runs(argument)


def wait_in_a_save(argument: dict[str, Any]) -> list[Any]:
    """programs.train_runs; rank 1 never begins to write its part of the checkpoint of number argument["save"]."""
    write, saves = mcore._write_in_process, 0

    def writing(*args: Any) -> None:
        nonlocal saves
        saves += 1
        while saves == argument["save"] and os.environ["RANK"] == "1":
            time.sleep(0.01)
        write(*args)

    mcore._write_in_process = writing
    return programs.train_runs(argument)
