"""Supervised fine-tuning: the mean cross entropy of the trained tokens, or of the samples (loss_mean)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nemo_ext.megatron.objective import Loss, Objective

if TYPE_CHECKING:
    from nemo_ext.megatron.runtime.pack_output import PackOutput


@dataclass(kw_only=True)
class Config(Objective):
    counts_tokens: ClassVar[bool] = True

    def loss(self, output: "PackOutput") -> Loss:
        """The weighted sum of the tokens' losses.

        Megatron divides the step's sum by its count: of trained tokens, or of samples when `weights` weighs each sample's
        tokens by the inverse of their number (batches.microbatch). Dividing per micro-batch, its default, would weigh a
        token by how full its pack is.
        """
        import torch

        return Loss((output.losses.float() * output.weights).sum(), output.counts.sum(dtype=torch.int))
