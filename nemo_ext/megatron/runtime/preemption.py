"""SIGTERM and SIGUSR1 (Slurm's warning before the time limit) end training after the step in progress, saved."""

import signal
from types import FrameType, TracebackType
from typing import Any, Self

EXIT_PREEMPTED = 85
"""A training process that saved and stopped because it was asked to ends with this; the launcher starts it again."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class PreemptionSignals:
    """Within the block the signals only set `received`; what they did before is restored at its end."""

    def __init__(self) -> None:
        self.received = False

    def __enter__(self) -> Self:
        self._before: dict[signal.Signals, Any] = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
