"""Kahneman-Tversky optimisation: answers labelled desirable or not, without pairs.

With r a sample's log-ratio and z the mean log-ratio of *mismatched* samples (an answer to another problem), but at
least 0, the loss is weight (1 - sigmoid(beta (r - z))) of a desirable sample and weight (1 - sigmoid(beta (z - r)))
of another (Ethayarajh et al. 2024, arXiv 2402.01306, equation 7; NeMo-Aligner and TRL have the same). z is taken over
the whole step, all replicas and micro-batches, and no gradient goes through it. At the start, where the model is its
own reference, the loss is 0.5.

A unit is a sample and then its mismatched one (prepare_preferences writes both): the mismatched samples of a step are run
forward for z, and only the others are trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nemo_ext.megatron.objective import Loss, Objective
from nemo_ext.megatron.preferences import DESIRABLE, LABELS, REFERENCE

if TYPE_CHECKING:
    import torch

    from nemo_ext.megatron.runtime.pack_output import PackOutput


@dataclass(kw_only=True)
class Config(Objective):
    beta: float = 0.1
    """How far the model may move from its reference: the smaller, the farther."""
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    units = LABELS
    samples_per_unit = 2
    loss_samples = (0,)
    first_pass = True
    first_pass_samples = (1,)

    def __post_init__(self) -> None:
        self.baseline = 0.0
        if self.beta <= 0 or min(self.desirable_weight, self.undesirable_weight) < 0:
            raise ValueError(f"objective: beta={self.beta} must be above 0, and the weights at least 0")

    @property
    def columns(self) -> tuple[str, ...]:
        return (REFERENCE, DESIRABLE)

    @property
    def figures(self) -> tuple[str, ...]:
        return ("kl", "desirable_share", "reward_chosen", "reward_rejected", "logprob_chosen", "logprob_rejected")

    def measure(self, output: "PackOutput") -> Loss:
        logratios = output.logprobs() - output.column(REFERENCE)
        return Loss(logratios.sum(), len(logratios), {"kl": (logratios.sum(), len(logratios))})

    def prepare(self, figures: Mapping[str, float]) -> None:
        self.baseline = max(0.0, figures["kl"])

    def remark(self, figures: Mapping[str, float]) -> str:
        share = figures.get(f"{DESIRABLE}_share")
        if share not in (0.0, 1.0):
            return ""
        kind = "desirable" if share else "undesirable"
        return f"all of its samples are {kind}: nothing says what the others should be, and the step is taken all the same"

    def loss(self, output: "PackOutput") -> Loss:
        import torch

        logprobs, desirable = output.logprobs(), output.column(DESIRABLE) > 0.5
        logratios = logprobs - output.column(REFERENCE)
        distance = self.beta * (logratios - self.baseline)
        weights = torch.where(desirable, self.desirable_weight, self.undesirable_weight)
        losses = weights * (1 - torch.where(desirable, distance, -distance).sigmoid())
        figures = self._figures(logprobs, self.beta * logratios, desirable)
        return Loss(losses.sum(), len(losses), figures)

    def _figures(self, logprobs: "torch.Tensor", rewards: "torch.Tensor", desirable: "torch.Tensor") -> dict[str, Any]:
        count = len(desirable)
        found: dict[str, Any] = {
            "kl": (rewards.new_tensor(self.baseline * count), count),
            "desirable_share": (desirable.float().sum(), count),
        }
        for name, which in (("chosen", desirable), ("rejected", ~desirable)):
            found[f"reward_{name}"] = (rewards * which).sum(), which.sum()
            found[f"logprob_{name}"] = (logprobs * which).sum(), which.sum()
        return found
