"""The weighted mean of the models (model soups, arXiv 2203.05482). With equal weights it is what the average stage makes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_ext.megatron.merging.method import Method, Place, weighted_sum

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class Config(Method):
    normalize: bool = True
    """Divide by the sum of the weights."""

    def combine(
        self, models: "list[torch.Tensor]", weights: Sequence[float], measured: Any, place: Place
    ) -> "torch.Tensor":
        total = weighted_sum(models, weights)
        return total.div_(sum(weights)) if self.normalize else total
