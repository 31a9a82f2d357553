"""Context parallelism: the tokens of a pack spread over ranks, whole again, head by head, inside attention.

Each of `size` ranks holds a run of consecutive tokens. Before attention an all-to-all trades tokens for heads, so that
every rank attends with its share of the query heads over the whole pack; keys and values, few with grouped queries, are
gathered. So attention is the same computation as without it, samples may be split anywhere, and the work is balanced
whatever the samples' lengths (DeepSpeed-Ulysses, arXiv 2309.14509; its limit of one key head a rank does not apply).
"""

from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel.mappings import all_to_all, gather_from_sequence_parallel_region

TOKEN_KEYS = "token_keys"  # noqa: S105 - no password
"""The entry of a micro-batch that dropout needs (layers/dropout.py)."""
TOKEN_WISE = ("tokens", "labels", "position_ids", "loss_mask", "counts", TOKEN_KEYS)
"""The entries of a micro-batch that are split, all [1, P]; the bounds of its samples stay those of the whole pack."""


def local_part(batch: dict[str, Any], rank: int, size: int) -> dict[str, Any]:
    """This rank's tokens of a micro-batch: [1, P / size] of each token-wise entry."""
    if size == 1:
        return batch
    return {key: value.chunk(size, dim=1)[rank] if key in TOKEN_WISE else value for key, value in batch.items()}


def tokens_to_heads(query: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """[P / size, heads, head_dim] -> [P, heads / size, head_dim]: all tokens of this rank's share of the heads."""
    size = group.size()
    tokens, heads, head_dim = query.shape
    sent = query.view(tokens, size, heads // size, head_dim).transpose(0, 1).contiguous()
    return all_to_all(group, sent).view(tokens * size, heads // size, head_dim)


def heads_to_tokens(result: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The inverse of `tokens_to_heads`."""
    size = group.size()
    tokens, heads, head_dim = result.shape
    received = all_to_all(group, result.contiguous().view(size, tokens // size, heads, head_dim))
    return received.transpose(0, 1).reshape(tokens // size, heads * size, head_dim)


def gather_groups(keys: torch.Tensor, num_heads: int, group: dist.ProcessGroup) -> torch.Tensor:
    """Keys or values [P / size, groups, head_dim] -> [P, g, head_dim], those that this rank's query heads use.

    `num_heads` is the number of query heads over all ranks of `group`. Where a rank's heads are whole groups, g is their
    number; else every query head gets its own copy, g = num_heads / size.
    """
    size, groups = group.size(), keys.shape[1]
    whole = gather_from_sequence_parallel_region(keys, group=group)
    first, mine, shared = group.rank() * num_heads // size, num_heads // size, num_heads // groups
    if mine % shared == 0:
        return whole.narrow(1, first // shared, mine // shared)
    index = torch.arange(first, first + mine, device=keys.device) // shared
    return whole.index_select(1, index)


class _SumOverGroup(torch.autograd.Function):
    """All-reduce of the values, and of their gradients: every rank goes on with the sum, so each one's part gets what all
    ranks' losses say of it. A loss that all of them count alike is then counted `size` times, gradients and count both."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.group = group
        total = values.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = gradient.clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


def sum_over_group(values: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """The sum of `values`, of any size, over the ranks of `group`, on each of them."""
    total: torch.Tensor = _SumOverGroup.apply(values, group)
    return total
