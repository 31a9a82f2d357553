"""Reward-aware preference optimisation: the difference of the log-ratios is to be that of the answers' rewards.

With a = eta (reward of chosen - of rejected) and b = beta (difference of the log-ratios), between the odds that
either is the better one (Nemotron-4 340B, arXiv 2406.11704, section 3.3.2; NeMo-Aligner's dpo loss of the same
names):
    bwd_kl   KL(Bernoulli(sigmoid a) || Bernoulli(sigmoid b)), the paper's
    fwd_kl   KL(Bernoulli(sigmoid b) || Bernoulli(sigmoid a))
    squared  (b - a)^2
Each is 0, with gradients of 0, where a = b. As the rewards' difference grows, bwd_kl becomes DPO's loss.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_ext.megatron.preferences import REWARD, PairObjective, Pairs

if TYPE_CHECKING:
    import torch

    from nemo_ext.megatron.runtime.pack_output import PackOutput

DISTANCES = ("bwd_kl", "fwd_kl", "squared")


@dataclass(kw_only=True)
class Config(PairObjective):
    eta: float = 1.0
    """The rewards' scale beside beta times the log-ratios: the paper's last rounds have 1."""
    distance: str = "bwd_kl"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distance not in DISTANCES:
            raise ValueError(f"objective: distance={self.distance!r}; it may be one of {', '.join(DISTANCES)}")

    @property
    def columns(self) -> tuple[str, ...]:
        return (*super().columns, REWARD)

    @property
    def figures(self) -> tuple[str, ...]:
        return (*super().figures, "margin_error")

    def pair_losses(self, pairs: Pairs, output: "PackOutput") -> "tuple[torch.Tensor, torch.Tensor, dict[str, Any]]":
        rewards = self.beta * pairs.logratios
        ours = rewards[:, 0] - rewards[:, 1]
        given = output.column(REWARD).view(-1, 2)
        theirs = self.eta * (given[:, 0] - given[:, 1])
        more = {"margin_error": ((ours - theirs).sum(), len(ours))}
        if self.distance == "squared":
            return (ours - theirs) ** 2, rewards, more
        ends = (theirs, ours) if self.distance == "bwd_kl" else (ours, theirs)
        return kl_of_odds(*ends), rewards, more


def kl_of_odds(first: "torch.Tensor", second: "torch.Tensor") -> "torch.Tensor":
    """KL(Bernoulli(sigmoid(first)) || Bernoulli(sigmoid(second))), without a loss of digits where both are far from 0."""
    from torch.nn.functional import logsigmoid

    yes = first.sigmoid() * (logsigmoid(first) - logsigmoid(second))
    return yes + (-first).sigmoid() * (logsigmoid(-first) - logsigmoid(-second))
