"""A reward model of one number, by which the chosen answer of a pair is to be above the rejected one.

-log sigmoid(r of chosen - r of rejected) (Bradley and Terry 1952; InstructGPT, arXiv 2203.02155, equation 1). With
`strength`, how much better the chosen answer is by the column of that name, it is the difference less the strength,
or the loss times it (HelpSteer2-Preference, arXiv 2410.01257, equations 3 and 4). `center_weight` pulls the sum of
both rewards to 0, which the loss leaves free (Eisenstein et al. 2023, arXiv 2312.09244; TRL's
center_rewards_coefficient).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nemo_ext.megatron.objective import Loss, Objective
from nemo_ext.megatron.preferences import PAIRS, STRENGTH, pair_figures
from nemo_ext.models.head import Head, Regression

if TYPE_CHECKING:
    from nemo_ext.megatron.runtime.pack_output import PackOutput
    from nemo_ext.models.shape import ModelShape

STRENGTHS = ("ignored", "margin", "scale")


@dataclass(kw_only=True)
class Config(Objective):
    strength: str = "ignored"
    """ignored, margin (taken from the difference) or scale (multiplied with the loss)."""
    center_weight: float = 0.0
    units = PAIRS
    samples_per_unit = 2

    def __post_init__(self) -> None:
        if self.strength not in STRENGTHS or self.center_weight < 0:
            raise ValueError(
                f"objective: strength={self.strength!r} may be one of {', '.join(STRENGTHS)}, and "
                f"center_weight={self.center_weight} at least 0"
            )

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.strength == "ignored" else (STRENGTH,)

    @property
    def figures(self) -> tuple[str, ...]:
        return ("reward_chosen", "reward_rejected", "reward_margin", "reward_accuracy")

    def head(self, shape: "ModelShape") -> Head:
        return Regression(1)

    def loss(self, output: "PackOutput") -> Loss:
        from torch.nn.functional import logsigmoid

        rewards = output.last_outputs().view(-1, 2)
        margins = rewards[:, 0] - rewards[:, 1]
        strength = output.column(STRENGTH).view(-1, 2)[:, 0] if self.columns else None
        losses = -logsigmoid(margins - strength if strength is not None and self.strength == "margin" else margins)
        if strength is not None and self.strength == "scale":
            losses = strength * losses
        if self.center_weight:
            losses = losses + self.center_weight * rewards.sum(1) ** 2
        return Loss(losses.sum(), len(losses), pair_figures(rewards))
