"""Megatron's forward step: a pack through the model, and an objective's loss of what comes out."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from megatron.core.utils import get_attr_wrapped_model

from nemo_ext.megatron.layers.context_parallel import local_part
from nemo_ext.megatron.objective import Loss
from nemo_ext.megatron.runtime.pack_output import PackOutput

LossOfPack = Callable[[PackOutput], Loss]
LossOutput = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]


def forward_step(
    batches: Iterator[dict[str, Any]],
    model: torch.nn.Module,
    loss_of: LossOfPack,
    needs_logits: bool = False,
    context_rank: int = 0,
    context_size: int = 1,
) -> tuple[torch.Tensor, Callable[[torch.Tensor], LossOutput]]:
    """Megatron's forward_step_func for one pack (nemo_ext.megatron.data.batches.microbatch, on this rank's device)."""
    batch = next(batches)
    part = local_part(batch, context_rank, context_size)
    pack = get_attr_wrapped_model(model, "pack_params")(batch, part)
    labels, cross_entropy = part["labels"], None
    if needs_logits:
        cross_entropy = partial(get_attr_wrapped_model(model, "cross_entropy"), labels)
        labels = None
    output = model(part["tokens"], part["position_ids"], None, labels=labels, packed_seq_params=pack)
    head = get_attr_wrapped_model(model, "head")

    def loss(values: torch.Tensor) -> LossOutput:
        return _reported(loss_of(PackOutput(values, part, context_rank, context_size, head, cross_entropy)))

    return output, loss


def _reported(loss: Loss) -> LossOutput:
    """The loss as Megatron takes it, and all of it again for the log: {"sum", "count"} and, of a figure, "sum <name>" and
    "count <name>"; of samples, "samples"."""
    device = loss.total.device
    count = torch.as_tensor(loss.count, device=device)
    logged = {"sum": loss.total.detach(), "count": count}
    for name, (total, number) in loss.figures.items():
        logged[f"sum {name}"] = total.detach()
        logged[f"count {name}"] = torch.as_tensor(number, device=device)
    if loss.samples is not None:
        logged["samples"] = loss.samples.detach()
    return loss.total, count.to(torch.int), logged
