"""A model's output for one pack, as an objective sees it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from megatron.core import parallel_state

from nemo_ext.megatron.layers.context_parallel import sum_over_group
from nemo_ext.models.head import Head, Regression, Vocabulary


@dataclass(frozen=True)
class PackOutput:
    """A pack of k samples in P tokens, of which this rank, of C context parallel ones, has P / C."""

    values: torch.Tensor
    """What the model gave: losses, or `logits` where the objective asks for them, or a regression head's numbers."""
    part: dict[str, Any]
    """This rank's part of the micro-batch (batches.microbatch)."""
    context_rank: int
    context_size: int
    head: Head
    cross_entropy: Callable[[torch.Tensor], torch.Tensor] | None
    """Of logits, their losses; None where `values` are losses."""

    @cached_property
    def losses(self) -> torch.Tensor:
        """Cross entropy of each label, fp32 [1, P / C]; where it is not trained, whatever. Of a vocabulary head."""
        if self.head != Vocabulary():
            raise ValueError(f"the model has a {self.head}, which gives no losses of tokens: read last_outputs")
        return self.values if self.cross_entropy is None else self.cross_entropy(self.values)

    @property
    def logits(self) -> torch.Tensor:
        """fp32 [1, P / C, V / TP], the padded vocabulary still split over the tensor parallel ranks, its pad rows at the
        lowest value there is; of a sample without trained tokens, whatever. Only for an objective with `needs_logits`."""
        if self.cross_entropy is None or self.head != Vocabulary():
            raise ValueError("logits are kept where the objective says needs_logits, of a vocabulary head")
        return self.values

    def last_outputs(self) -> torch.Tensor:
        """A regression head's outputs at each sample's last token, fp32 [k, outputs], whole on every tensor and context
        parallel rank."""
        if not isinstance(self.head, Regression):
            raise ValueError(f"the model has a {self.head}: give the objective a regression head to read its outputs")
        length = self.values.shape[1]
        places = self.part["cu_seqlens"][1 : self.num_samples + 1].long() - 1 - self.context_rank * length
        there = (places >= 0) & (places < length)
        outputs = self.values[0].float().index_select(0, places.clamp(0, length - 1))
        return self._over_context(torch.where(there[:, None], outputs, 0))

    @property
    def weights(self) -> torch.Tensor:
        """fp32 [1, P / C], of each token's loss; 0 where it is not trained."""
        weights: torch.Tensor = self.part["loss_mask"]
        return weights

    @property
    def counts(self) -> torch.Tensor:
        """int32 [1, P / C], what each token adds to the count."""
        counts: torch.Tensor = self.part["counts"]
        return counts

    @property
    def num_samples(self) -> int:
        """k. 0 in the empty packs that fill up a step: sums over samples are then 0, with gradients of 0."""
        return int(self.part["num_samples"])

    def column(self, name: str) -> torch.Tensor:
        """fp32 [k] or [k, width], a column of the token folder."""
        values: torch.Tensor = self.part["columns"][name]
        return values

    def sample_sums(self, values: torch.Tensor) -> torch.Tensor:
        """The sums over each sample of `values` [1, P / C], over all context parallel ranks: [k]."""
        edges = self.part["cu_seqlens"]
        length = values.shape[1]
        places = self.context_rank * length + torch.arange(length, device=values.device)
        starts, ends = (edges[i : i + self.num_samples, None] for i in (0, 1))
        # Not index_add: on GPUs it adds in whatever order.
        return self._over_context(torch.where((places >= starts) & (places < ends), values, 0).sum(1))

    def _over_context(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over the context parallel ranks, of which each goes on with it."""
        if self.context_size == 1:
            return values
        return sum_over_group(values, parallel_state.get_context_parallel_group())

    def logprobs(self) -> torch.Tensor:
        """Log-probability of each sample's trained tokens, fp32 [k]."""
        return self.sample_sums(torch.where(self.weights > 0, -self.losses.float(), 0))
