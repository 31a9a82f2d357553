"""Spherical interpolation between two models, tensor by tensor: `t` of the way from the first to the second."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_ext.megatron.merging.method import Method, Passes, Place, weighted_sum

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class Config(Method):
    t: float = 0.5
    num_models = 2
    takes_weights = False

    def __post_init__(self) -> None:
        if not 0 <= self.t <= 1:
            raise ValueError(f"method.t={self.t} must be in [0, 1]")

    def measure(self, passes: Passes, weights: Sequence[float]) -> list[float]:
        import torch

        from nemo_ext.megatron.merging.spherical import products, slerp

        ends = torch.eye(2, dtype=torch.float64)
        return [float(each) for each in slerp(products(passes()), ends[0], ends[1], self.t)]

    def combine(
        self, models: "list[torch.Tensor]", weights: Sequence[float], measured: Any, place: Place
    ) -> "torch.Tensor":
        return weighted_sum(models, measured)
