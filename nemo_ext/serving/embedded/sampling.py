"""Choosing the next token of every running sequence at once.

The draw is by inverse cumulative distribution with one uniform number per token, from a counter-based generator: the
i-th token of a choice depends on its seed, i and its logits only, never on what else is running.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Singles = NDArray[np.float32]
GREEDY_BELOW = 1e-5  # temperatures under this are greedy, as in vLLM
CANDIDATES = 64  # tokens top_p looks at first


def stream_key(seed: int | str) -> int:
    """The generator's 64-bit key of one choice."""
    return int.from_bytes(hashlib.sha256(f"{seed}".encode()).digest()[:8], "little")


def uniforms(keys: NDArray[np.uint64], counts: NDArray[np.uint64]) -> Floats:
    """Number `counts[i]` of stream `keys[i]`, in [0, 1): splitmix64 (Steele, Lea, Flood 2014)."""
    z = keys + (counts + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose(logits: Tensor, temperature: Floats, top_p: Floats, top_k: Ints, uniform: Floats) -> Ints:
    """int64 [rows]: the token each row's uniform number picks, or its best one where the temperature is 0.

    Tokens are laid side by side in the order of their ids, each as wide as its probability among those kept. Tokens
    exactly as likely as the last one kept are kept too; greedy takes the lowest id of the best.

    Args:
        logits: [rows, vocab], float64 or float32; rounded to float32 first.
        temperature: float64 [rows].
        top_p: float64 [rows] in (0, 1]; the smallest set of best tokens with at least this share of what top_k kept.
        top_k: int64 [rows]; 0 keeps all.
        uniform: float64 [rows] in [0, 1).
    """
    logits = logits.float()
    chosen = np.empty(len(logits), dtype=np.int64)
    greedy, drawn = np.flatnonzero(temperature < GREEDY_BELOW), np.flatnonzero(temperature >= GREEDY_BELOW)
    if len(greedy):
        chosen[greedy] = logits[torch.from_numpy(greedy)].argmax(-1).numpy()
    if len(drawn):
        rows = logits[torch.from_numpy(drawn)] if len(greedy) else logits
        chosen[drawn] = _draw(rows, 1.0 / temperature[drawn], top_p[drawn], top_k[drawn], uniform[drawn])
    return chosen


def _draw(logits: Tensor, inverse: Floats, top_p: Floats, top_k: Ints, uniform: Floats) -> Ints:
    """`inverse` is 1 / temperature."""
    weights = (logits - logits.amax(-1, keepdim=True)).double()  # of the best token 1
    weights.mul_(torch.from_numpy(inverse)[:, None]).exp_()
    cut = np.flatnonzero((top_p < 1) | (top_k > 0))
    if len(cut):
        floor = np.full((len(logits), 1), -np.inf, dtype=np.float32)
        total = weights.sum(-1).numpy()
        floor[cut, 0] = _floor(logits.numpy()[cut], inverse[cut], top_p[cut], top_k[cut], total[cut], CANDIDATES)
        weights.masked_fill_(logits < torch.from_numpy(floor), 0.0)
    cumulative = weights.cumsum_(-1)
    whole = cumulative[:, -1:].contiguous()
    chosen = torch.searchsorted(cumulative, whole * torch.from_numpy(uniform)[:, None], right=True)
    last = torch.searchsorted(cumulative, whole)  # the product may round up to the whole: the last token kept
    return torch.minimum(chosen, last)[:, 0].numpy()


def _floor(logits: Singles, inverse: Floats, top_p: Floats, top_k: Ints, total: Floats, width: int) -> Singles:
    """float32 [rows]: the logit of the last token that top_k and then top_p keep.

    Looks at the `width` best tokens first, found without their order, and sorts whole rows where that is too few.

    Args:
        total: float64 [rows]: the sum of all weights.
    """
    width = min(width, logits.shape[-1])
    best = np.sort(np.partition(logits, logits.shape[-1] - width, axis=-1)[:, -width:], axis=-1)[:, ::-1]
    weights = torch.from_numpy(best - best[:, :1]).double()  # torch: its exp and cumsum are four times numpy's
    cumulative = weights.mul_(torch.from_numpy(inverse)[:, None]).exp_().cumsum_(-1).numpy()
    rows = np.arange(len(best))
    last = np.where(top_k > 0, np.minimum(top_k, width), width) - 1
    limit = top_p * np.where(top_k > 0, cumulative[rows, last], total)
    reaches = (cumulative < limit[:, None]).sum(-1)
    floor = best[rows, np.where(top_p < 1, np.minimum(reaches, last), last)]
    unsure = np.where(top_k > 0, top_k > width, cumulative[:, -1] < limit)
    if width < logits.shape[-1] and unsure.any():
        u = unsure
        floor[u] = _floor(logits[u], inverse[u], top_p[u], top_k[u], total[u], logits.shape[-1])
    return floor
