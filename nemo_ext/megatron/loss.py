"""The training loss: the mean over every trained token of the global batch, however it was packed or split."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from megatron.core.utils import get_attr_wrapped_model

LossOutput = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


def masked_sum(loss_mask: torch.Tensor, losses: torch.Tensor) -> LossOutput:
    """Of per-token losses [1, P]: (their sum over the trained tokens, the number of those, both again for the log).

    With `calculate_per_token_loss` Megatron sums gradients over micro-batches and data parallel ranks, then divides
    them by the summed count. Dividing per micro-batch, its default, would weigh a token by how full its pack is.
    """
    total = (losses.float() * loss_mask).sum()
    count = loss_mask.sum()
    return total, count.to(torch.int), {"sum": total.detach(), "count": count}


def forward_step(
    batches: Iterator[dict[str, Any]], model: torch.nn.Module
) -> tuple[torch.Tensor, Callable[[torch.Tensor], LossOutput]]:
    """Megatron's forward_step_func for one pack (nemo_ext.megatron.data.microbatch, on this rank's device)."""
    batch = next(batches)
    pack = get_attr_wrapped_model(model, "pack_params")(batch)
    output = model(batch["tokens"], batch["position_ids"], None, labels=batch["labels"], packed_seq_params=pack)
    return output, partial(masked_sum, batch["loss_mask"])
