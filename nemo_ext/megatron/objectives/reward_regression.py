"""A reward model of several numbers, each an attribute that people have rated, as helpfulness and verbosity.

The squared error of every rating there is, and their mean: one that is not there counts nothing (SteerLM's and HelpSteer2's
regression reward models, arXiv 2406.08673; NeMo-Aligner).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.megatron.objective import Loss, Objective
from nemo_ext.megatron.preferences import ATTRIBUTES, RATINGS
from nemo_ext.models.head import Head, Regression
from nemo_ext.rows.outside.preferences import MISSING_RATING

if TYPE_CHECKING:
    from nemo_ext.megatron.runtime.pack_output import PackOutput
    from nemo_ext.models.shape import ModelShape


@dataclass(kw_only=True)
class Config(Objective):
    attributes: list[str] = MISSING
    """Their names, in the order of the outputs; the same that the samples were prepared with."""
    units = RATINGS

    def __post_init__(self) -> None:
        if not self.attributes or len(set(self.attributes)) < len(self.attributes):
            raise ValueError(f"objective: attributes={self.attributes}: name at least one, and none twice")

    @property
    def columns(self) -> tuple[str, ...]:
        return (ATTRIBUTES,)

    @property
    def figures(self) -> tuple[str, ...]:
        return tuple(f"error_{name}" for name in self.attributes)

    def check_facts(self, facts: Mapping[str, Any]) -> None:
        if facts.get(ATTRIBUTES) != self.attributes:
            raise ValueError(
                f"objective.attributes={self.attributes}, and the samples were prepared with {facts.get(ATTRIBUTES)}: an "
                "output would be trained on another attribute's ratings"
            )

    def head(self, shape: "ModelShape") -> Head:
        return Regression(len(self.attributes))

    def loss(self, output: "PackOutput") -> Loss:
        import torch

        outputs = output.last_outputs()
        ratings = output.column(ATTRIBUTES)
        ratings = ratings[:, None] if ratings.dim() == 1 else ratings
        rated = ratings != MISSING_RATING
        errors = torch.where(rated, outputs - ratings, 0)
        numbers = rated.sum(0)
        figures = {name: (errors[:, place].abs().sum(), numbers[place]) for place, name in enumerate(self.figures)}
        return Loss((errors**2).sum(), rated.sum(), figures)
