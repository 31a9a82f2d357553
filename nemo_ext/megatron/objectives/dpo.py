"""Direct preference optimisation: the chosen answer's log-ratio is to be above the rejected one's.

With d the difference of a pair's log-ratios the loss is -(1 - e) log sigmoid(beta d) - e log sigmoid(-beta d), e being
label_smoothing (Rafailov et al. 2023, arXiv 2305.18290, equation 7; Mitchell's note on conservative DPO). At the
start, where the model is its own reference, it is ln 2.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_ext.megatron.preferences import PairObjective, Pairs

if TYPE_CHECKING:
    import torch

    from nemo_ext.megatron.runtime.pack_output import PackOutput


@dataclass(kw_only=True)
class Config(PairObjective):
    label_smoothing: float = 0.0
    """The share of pairs that are taken to be the wrong way round, in [0, 0.5)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"objective: label_smoothing={self.label_smoothing} must be in [0, 0.5)")

    def pair_losses(self, pairs: Pairs, output: "PackOutput") -> "tuple[torch.Tensor, torch.Tensor, dict[str, Any]]":
        from torch.nn.functional import logsigmoid

        rewards = self.beta * pairs.logratios
        margins = rewards[:, 0] - rewards[:, 1]
        losses = -logsigmoid(margins)
        if self.label_smoothing:
            losses = (1 - self.label_smoothing) * losses - self.label_smoothing * logsigmoid(-margins)
        return losses, rewards, {}
