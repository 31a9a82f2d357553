"""Dropout whose masks follow from seed, step, sample, position and place in the model, and from nothing else.

So there is no random state: a resumed run repeats the masks, recompute makes them again, and neither topology, packing nor
the order of micro-batches changes them. Megatron's own draws from the generator of each process, in the order of its calls.

A number for each element comes from SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014):
a counter times an odd constant, begun where token and place say, and hashed; an element is kept where its upper 24 bits are
at least probability x 2^24. Integers only, so a CPU and a GPU agree. Not compiled: torch 2.13's compiler multiplies int64
wrongly on a CPU, which the masks' shares showed.
"""

from collections.abc import Sequence
from typing import Any

import torch


def _signed(number: int) -> int:
    """The int64 that a number is, modulo 2^64."""
    return (number + 2**63) % 2**64 - 2**63


GAMMA, FIRST, SECOND = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
BITS = 24
EMBEDDING = 0
"""The place of the embedding; layer n, from 1, has 3 n and the next two."""
AFTER_ATTENTION, AFTER_MLP, IN_ATTENTION = range(3)


def place_of(layer_number: int, part: int) -> int:
    return 3 * layer_number + part


def _shifted(values: torch.Tensor, bits: int) -> torch.Tensor:
    """A logical shift to the right of int64, whose own repeats the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def mixed(values: torch.Tensor) -> torch.Tensor:
    """SplitMix64's hash of int64 values, of any shape."""
    values = (values ^ _shifted(values, 30)) * FIRST
    values = (values ^ _shifted(values, 27)) * SECOND
    return values ^ _shifted(values, 31)


def token_keys(seed: int, step: int, pack: Sequence[int], cu_seqlens: torch.Tensor) -> torch.Tensor:
    """int64 [P]: what distinguishes each token of a pack (sample ids) in this step from all others; padding is sample -1."""
    starts, ends = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    samples = torch.tensor([*pack, -1][: len(starts)])
    step_key = mixed(mixed(torch.tensor(_signed(seed))) + _signed(step * GAMMA))
    sample_keys = mixed(step_key + samples * GAMMA)
    positions = torch.arange(int(cu_seqlens[-1])) - starts.repeat_interleave(ends - starts)
    return mixed(sample_keys.repeat_interleave(ends - starts) + positions * GAMMA)


def kept(keys: torch.Tensor, place: int, width: int, probability: float) -> torch.Tensor:
    """bool [..., width]: which of the `width` elements of each key are kept at a place, where `probability` drops one."""
    starts = mixed(keys + _signed(place * GAMMA))
    numbers = mixed(starts[..., None] + torch.arange(width, device=keys.device) * GAMMA)
    return _shifted(numbers, 64 - BITS) >= round(probability * 2**BITS)


def kept_scores(keys: torch.Tensor, place: int, heads: range, probability: float) -> torch.Tensor:
    """bool [samples, heads, tokens, tokens]: which attention weights are kept of each query to each position of its sample.
    `keys` [samples, tokens] are the queries'; `heads` are counted over the whole model."""
    numbers = torch.arange(heads.start, heads.stop, device=keys.device) * GAMMA
    return kept(mixed(keys[:, None] + numbers[:, None]), place, keys.shape[1], probability)


class _Dropped(torch.autograd.Function):
    """Makes the mask again in the backward pass, so nothing is kept but the tokens' keys."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, keys: torch.Tensor, place: int, probability: float) -> torch.Tensor:
        ctx.save_for_backward(keys)
        ctx.place, ctx.probability = place, probability
        return _masked(values, keys, place, probability)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (keys,) = ctx.saved_tensors
        return _masked(gradients[0], keys, ctx.place, ctx.probability), None, None, None


def _masked(values: torch.Tensor, keys: torch.Tensor, place: int, probability: float) -> torch.Tensor:
    mask = kept(keys, place, values.shape[-1], probability)[:, None]
    return torch.where(mask, values / (1 - probability), 0.0)


def dropped(values: torch.Tensor, keys: torch.Tensor | None, place: int, probability: float) -> torch.Tensor:
    """Hidden states [tokens, 1, hidden] of the tokens of `keys`, some set to 0 and the others divided by 1 - probability."""
    assert keys is not None, "a pass that trains knows its step"
    result: torch.Tensor = _Dropped.apply(values, keys, place, probability)
    return result
