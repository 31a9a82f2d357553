"""The training loss: the mean over the global batch, however it was packed or split."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from megatron.core.utils import get_attr_wrapped_model

from nemo_ext.megatron.layers.context_parallel import local_part

LossOutput = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


def weighted_sum(loss_mask: torch.Tensor, counts: torch.Tensor, losses: torch.Tensor) -> LossOutput:
    """Of per-token losses [1, P]: (their weighted sum, what it is to be divided by, both again for the log).

    With `calculate_per_token_loss` Megatron sums gradients over micro-batches, context and data parallel ranks, then
    divides them by the summed count: of trained tokens, or of samples when loss_mask weighs each sample's tokens by the
    inverse of their number (batches.microbatch). Dividing per micro-batch, its default, would weigh a token by how full
    its pack is.
    """
    total = (losses.float() * loss_mask).sum()
    count = counts.sum(dtype=torch.int)
    return total, count, {"sum": total.detach(), "count": count}


def forward_step(
    batches: Iterator[dict[str, Any]], model: torch.nn.Module, context_rank: int = 0, context_size: int = 1
) -> tuple[torch.Tensor, Callable[[torch.Tensor], LossOutput]]:
    """Megatron's forward_step_func for one pack (nemo_ext.megatron.data.batches.microbatch, on this rank's device)."""
    batch = next(batches)
    part = local_part(batch, context_rank, context_size)
    pack = get_attr_wrapped_model(model, "pack_params")(batch, part)
    output = model(part["tokens"], part["position_ids"], None, labels=part["labels"], packed_seq_params=pack)
    return output, partial(weighted_sum, part["loss_mask"], part["counts"])
