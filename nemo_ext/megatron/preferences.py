"""Pairs of preferences, their log-ratios to a reference, and the figures of both: what their objectives share.

A pair is two samples of one unit, the chosen before the rejected. A log-ratio is log pi(answer | prompt) of the model
that is trained, less the reference's, which a stage before the training has written as the column REFERENCE. beta
times it is what DPO's paper calls the implicit reward.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_ext.megatron.objective import Loss, Objective

if TYPE_CHECKING:
    import torch

    from nemo_ext.megatron.runtime.pack_output import PackOutput

PAIRS, LABELS, RATINGS = "pairs", "labels", "ratings"
"""Kinds of units that a token folder may hold (objective.UNITS)."""
REFERENCE = "reference_logprob"
"""The column of the reference model's log-probability of a sample's trained tokens."""
REWARD, STRENGTH, DESIRABLE, ATTRIBUTES = "reward", "strength", "desirable", "attributes"
"""Columns that prepare_preferences writes: the first two of pairs, then of labels and of ratings."""


@dataclass(frozen=True)
class Pairs:
    """Of one pack with n pairs."""

    logprobs: "torch.Tensor"
    """fp32 [n, 2], of chosen and rejected."""
    logratios: "torch.Tensor"
    """fp32 [n, 2]."""
    num_tokens: "torch.Tensor"
    """fp32 [n, 2], trained tokens."""


@dataclass(kw_only=True)
class PairObjective(Objective):
    """The base of objectives that compare the log-ratios of a pair."""

    beta: float = 0.1
    """How far the model may move from its reference: the smaller, the farther."""
    sft_weight: float = 0.0
    """Weight of the chosen answers' mean negative log-likelihood per token, added to the loss of each pair."""
    units = PAIRS
    samples_per_unit = 2

    def __post_init__(self) -> None:
        if self.beta <= 0 or self.sft_weight < 0:
            raise ValueError(f"objective: beta={self.beta} must be above 0, sft_weight={self.sft_weight} at least 0")

    @property
    def columns(self) -> tuple[str, ...]:
        return (REFERENCE,)

    @property
    def figures(self) -> tuple[str, ...]:
        return (
            "reward_chosen",
            "reward_rejected",
            "reward_margin",
            "reward_accuracy",
            "logprob_chosen",
            "logprob_rejected",
        )

    @abstractmethod
    def pair_losses(self, pairs: Pairs, output: "PackOutput") -> "tuple[torch.Tensor, torch.Tensor, dict[str, Any]]":
        """(losses [n], rewards [n, 2] for the figures, further figures as Loss has them)."""

    def loss(self, output: "PackOutput") -> Loss:
        pairs = pairs_of(output)
        losses, rewards, more = self.pair_losses(pairs, output)
        if self.sft_weight:
            losses = losses - self.sft_weight * pairs.logprobs[:, 0] / pairs.num_tokens[:, 0]
        return Loss(losses.sum(), len(losses), pair_figures(rewards, pairs.logprobs) | more)


def pairs_of(output: "PackOutput") -> Pairs:
    import torch

    logprobs = output.logprobs()
    num_tokens = output.sample_sums(torch.where(output.weights > 0, 1.0, 0.0))
    logratios = logprobs - output.column(REFERENCE)
    return Pairs(*(each.view(-1, 2) for each in (logprobs, logratios, num_tokens)))


def pair_figures(rewards: "torch.Tensor", logprobs: "torch.Tensor | None" = None) -> "dict[str, Any]":
    """Sums and counts over the pairs of rewards [n, 2]: their means, the mean margin, and the share of pairs whose chosen
    answer has the higher one, in which a tie counts a half."""
    import torch

    margins = rewards[:, 0] - rewards[:, 1]
    right = (torch.sign(margins) + 1) / 2
    values = {"reward_chosen": rewards[:, 0], "reward_rejected": rewards[:, 1], "reward_margin": margins}
    values |= {"reward_accuracy": right}
    if logprobs is not None:
        values |= {"logprob_chosen": logprobs[:, 0], "logprob_rejected": logprobs[:, 1]}
    return {name: (each.sum(), len(margins)) for name, each in values.items()}
