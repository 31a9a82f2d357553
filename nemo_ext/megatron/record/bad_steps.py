"""Bad steps: a loss or gradient norm that is NaN or infinite, or a loss that jumps. Stop, or skip the update.

A NaN that reaches the optimizer is in every weight from then on, and Adam's moments never forget it; so the step is
judged after its gradients are reduced and before they are used. The judgement is made from numbers that all ranks have.
"""

import math
from collections import deque
from typing import Any

from nemo_ext.megatron.settings import TrainSettings

WINDOW = 100  # steps
MIN_HISTORY = 20  # a spike is measured against at least so many losses


class BadStep(ValueError):
    """Training cannot go on; the message says where, why and which samples to look at."""


def badness(loss: float) -> float:
    """Orders losses from good to bad: NaN, which compares with nothing, is as bad as infinity."""
    return math.inf if math.isnan(loss) else loss


class Guard:
    """Judges steps; its state travels in the checkpoint, so a resumed run judges alike."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.skipped_in_a_row = 0
        self.skipped = 0

    def reason(self, loss: float, grad_norm: float) -> str | None:
        """Why this step's update must not be made; None when it may."""
        for name, value in (("loss", loss), ("gradient norm", grad_norm)):
            if not math.isfinite(value):
                return f"{name} is {value}"
        factor = self.settings.loss_spike_factor
        if factor is not None and len(self.losses) >= MIN_HISTORY:
            usual = sum(self.losses) / len(self.losses)
            if loss > factor * usual:
                return (
                    f"loss {loss:.4f} is over {factor:g} times the last {len(self.losses)} steps' mean of {usual:.4f}"
                )
        return None

    def accept(self, loss: float) -> None:
        self.losses.append(loss)
        self.skipped_in_a_row = 0

    def skip(self, step: int, reason: str, samples: list[int]) -> None:
        """Count a bad step.

        Raises:
            BadStep: the settings say stop, or too many were skipped in a row.
        """
        self.skipped += 1
        self.skipped_in_a_row += 1
        settings = self.settings
        where = f"step {step}: {reason}; samples with the worst losses (index in train/): {samples}"
        if settings.on_bad_step == "stop":
            raise BadStep(f"{where}. Look at them, or go on past such steps with on_bad_step=skip")
        if self.skipped_in_a_row >= settings.max_skipped_steps:
            raise BadStep(
                f"{where}. It is the {self.skipped_in_a_row}th bad step in a row (max_skipped_steps): lower lr, or set "
                "clip_grad, and start again from the last checkpoint"
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "losses": list(self.losses),
            "skipped_in_a_row": self.skipped_in_a_row,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.losses = deque(state["losses"], maxlen=WINDOW)
        self.skipped_in_a_row, self.skipped = state["skipped_in_a_row"], state["skipped"]
