"""The merging steps of WARP: the models' differences from their start, interpolated spherically, and then a way back to it.

The differences are taken in one by one, the n-th by 1 / n of the way (SLERP, tensor by tensor), and `toward_init` of
the result is given up again (LITI), so that 0.5 is half way between the start and the merged model. The base is the
model that they were all trained from (arXiv 2406.16768, sections 3.2 and 3.3; its anchor, a moving average, is a
matter of the training).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_ext.megatron.merging.method import Method, Passes, Place, weighted_sum

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class Config(Method):
    toward_init: float = 0.5
    """How far back, in [0, 1]: the paper's 1 - eta."""
    of_differences = True
    takes_weights = False

    def __post_init__(self) -> None:
        if not 0 <= self.toward_init <= 1:
            raise ValueError(f"method.toward_init={self.toward_init} must be in [0, 1]")

    def measure(self, passes: Passes, weights: Sequence[float]) -> list[float]:
        import torch

        from nemo_ext.megatron.merging.spherical import products, slerp

        gram, each = products(passes()), torch.eye(len(weights), dtype=torch.float64)
        merged = each[0]
        for number in range(1, len(weights)):
            merged = slerp(gram, merged, each[number], 1 / (number + 1))
        return [float(value) * (1 - self.toward_init) for value in merged]

    def combine(
        self, models: "list[torch.Tensor]", weights: Sequence[float], measured: Any, place: Place
    ) -> "torch.Tensor":
        return weighted_sum(models, measured)
