"""Drop and rescale: of each model's differences from the base a random share is kept, and stands for all (arXiv
2311.03099).

Which ones follows from the seed, the model's place, the tensor's name and the element, and from nothing else. What is
kept is divided by `density`, as in the paper (`rescale: false`: it is not), and added up, or merged by TIES' election
of signs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_ext.megatron.merging.method import Method, Place

if TYPE_CHECKING:
    import torch


@dataclass(kw_only=True)
class Config(Method):
    density: float = 0.1
    """Share of the differences that is kept, in (0, 1]; the paper drops up to 90 and 99 %."""
    elect_signs: bool = False
    """Merge as TIES does, in place of adding up (DARE-TIES)."""
    rescale: bool = True
    normalize: bool = False
    """Divide by the weights: of all models or, with elect_signs, of those that agree."""
    scale: float = 1.0
    """Multiplies what is added to the base."""
    seed: int = 0
    of_differences = True

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ValueError(f"method.density={self.density} must be above 0 and at most 1")

    def combine(
        self, models: "list[torch.Tensor]", weights: Sequence[float], measured: Any, place: Place
    ) -> "torch.Tensor":
        import torch

        from nemo_ext.megatron.merging.consensus import elected

        factor = 1 / self.density if self.rescale else 1.0
        kept = [
            torch.where(self.mask(number, place, each.shape), each, 0) * factor for number, each in enumerate(models)
        ]
        if self.elect_signs:
            return elected(kept, weights, self.normalize) * self.scale
        total = torch.stack([each * weight for each, weight in zip(kept, weights, strict=True)]).sum(0)
        divisor = sum(weights) if self.normalize and abs(sum(weights)) >= 1e-8 else 1.0
        return total * (self.scale / divisor)

    def mask(self, model: int, place: Place, size: "Sequence[int]") -> "torch.Tensor":
        """bool, of rows of the tensor: which elements of the model's are kept."""
        import hashlib

        import torch

        from nemo_ext.megatron.layers.dropout import GAMMA, kept, mixed

        name = hashlib.sha256(f"{self.seed}/{model}/{place.tensor}".encode()).digest()
        key = torch.tensor(int.from_bytes(name[:8], "big", signed=True))
        rows = mixed(key + torch.arange(place.first_row, place.first_row + size[0]) * GAMMA)
        width = torch.Size(size[1:]).numel()
        return kept(rows, 0, width, 1 - self.density).view(*size)
