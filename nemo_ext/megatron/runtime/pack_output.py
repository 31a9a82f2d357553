"""A model's output for one pack, as an objective sees it."""

from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state

from nemo_ext.megatron.layers.context_parallel import sum_over_group


@dataclass(frozen=True)
class PackOutput:
    """A pack of k samples in P tokens, of which this rank, of C context parallel ones, has P / C."""

    losses: torch.Tensor
    """Cross entropy of each label, fp32 [1, P / C]; where it is not trained, whatever."""
    part: dict[str, Any]
    """This rank's part of the micro-batch (batches.microbatch)."""
    context_rank: int
    context_size: int

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
        sums = torch.where((places >= starts) & (places < ends), values, 0).sum(1)
        if self.context_size == 1:
            return sums
        return sum_over_group(sums, parallel_state.get_context_parallel_group())

    def logprobs(self) -> torch.Tensor:
        """Log-probability of each sample's trained tokens, fp32 [k]."""
        return self.sample_sums(torch.where(self.weights > 0, -self.losses.float(), 0))
