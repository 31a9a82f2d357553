"""The base and the weighted sum of what the models differ in from it (task vectors, arXiv 2212.04089)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_ext.megatron.merging.method import Method, Place, weighted_sum

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class Config(Method):
    scale: float = 1.0
    """Multiplies the sum: the paper's lambda."""
    normalize: bool = False
    """Divide the sum by that of the weights."""
    of_differences = True

    def combine(
        self, models: "list[torch.Tensor]", weights: Sequence[float], measured: Any, place: Place
    ) -> "torch.Tensor":
        total = weighted_sum(models, weights)
        divisor = sum(weights) if self.normalize and abs(sum(weights)) >= 1e-8 else 1.0
        return total.mul_(self.scale / divisor)
