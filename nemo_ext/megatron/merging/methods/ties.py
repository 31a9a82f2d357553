"""Trim, elect signs and merge: of each model's differences from the base the largest, of those the ones that agree.

Of each tensor the `density` of a model's differences with the largest magnitudes is kept, exactly, ties with the smallest of
them included; at each place the sign of their weighted sum decides, and those of that sign are averaged (TIES, arXiv
2306.01708).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_ext.megatron.merging.method import Method, Passes, Place

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class Config(Method):
    density: float = 0.2
    """Share of the differences that is kept, in (0, 1]; the paper's k is 20 %."""
    scale: float = 1.0
    """Multiplies what is added to the base: the paper's lambda."""
    normalize: bool = True
    """Average those that agree; false: add them up."""
    of_differences = True

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ValueError(f"method.density={self.density} must be above 0 and at most 1")

    def measure(self, passes: Passes, weights: Sequence[float]) -> list[float]:
        """Of each model, the smallest magnitude that is kept."""
        from nemo_ext.megatron.merging.magnitudes import smallest_kept

        return [0.0] * len(weights) if self.density == 1 else smallest_kept(passes, self.density)

    def combine(
        self, models: "list[torch.Tensor]", weights: Sequence[float], measured: Any, place: Place
    ) -> "torch.Tensor":
        import torch

        from nemo_ext.megatron.merging.consensus import elected

        kept = [torch.where(each.abs() >= least, each, 0) for each, least in zip(models, measured, strict=True)]
        return elected(kept, weights, self.normalize) * self.scale
