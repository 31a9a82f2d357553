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
GREEDY_BELOW = 1e-5  # temperatures under this are greedy, as in vLLM
CANDIDATES = 64  # tokens looked at first; rows that need more are sorted whole


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

    Logits are rounded to float32 first: logits that are equal but for the order of a sum become equal, so that ties
    go to the lowest id and the order of the cumulative distribution does not depend on batching.

    Args:
        logits: [rows, vocab], float64 or float32.
        temperature: float64 [rows].
        top_p: float64 [rows] in (0, 1]; the smallest set of best tokens with at least this share of what top_k kept.
        top_k: int64 [rows]; 0 keeps all.
        uniform: float64 [rows] in [0, 1).
    """
    logits = logits.float()
    greedy = temperature < GREEDY_BELOW
    if greedy.all():
        return logits.argmax(-1).numpy()
    inverse = 1.0 / np.where(greedy, 1.0, temperature)
    chosen, exact = _draw_from_best(logits, inverse, top_p, top_k, uniform)
    hard = np.flatnonzero(~(exact | greedy))
    if len(hard):
        rows = logits[torch.from_numpy(hard)]
        values, ids = torch.sort(rows, dim=-1, descending=True, stable=True)
        cumulative = _cumulative(values, rows, inverse[hard])
        chosen[hard] = _pick(cumulative, ids.numpy(), top_p[hard], top_k[hard], uniform[hard])
    return np.where(greedy, logits.argmax(-1).numpy(), chosen) if greedy.any() else chosen


def _draw_from_best(
    logits: Tensor, inverse: Floats, top_p: Floats, top_k: Ints, uniform: Floats
) -> tuple[Ints, NDArray[np.bool_]]:
    """Draw among the CANDIDATES best tokens, and say for which rows that is the exact answer."""
    count = min(CANDIDATES, logits.shape[-1])
    values, ids = logits.topk(count)
    cumulative = _cumulative(values, logits, inverse)
    total, uncut = cumulative[:, -1], (top_k == 0) & (top_p >= 1)
    exact = np.where(uncut, total > uniform, np.where(top_k > 0, top_k <= count, total >= top_p))
    return _pick(cumulative, ids.numpy(), top_p, top_k, uniform), exact | (count == logits.shape[-1])


def _cumulative(values: Tensor, logits: Tensor, inverse: Floats) -> Floats:
    """Cumulative probability of the best logits `values`; `inverse` is 1 / temperature."""
    scale = inverse[:, None]
    normaliser = (logits * torch.from_numpy(scale)).logsumexp(-1, keepdim=True).numpy()
    return np.exp(values.numpy() * scale - normaliser).cumsum(-1)


def _pick(cumulative: Floats, ids: Ints, top_p: Floats, top_k: Ints, uniform: Floats) -> Ints:
    """The id whose share of the kept mass covers the uniform number.

    numpy and not torch: on arrays this small a call costs more than its arithmetic, and numpy's cost less.
    """
    rows, width = np.arange(len(cumulative)), cumulative.shape[-1]
    last = np.where(top_k > 0, np.minimum(top_k, width), width) - 1
    limit = top_p * np.where(top_k > 0, cumulative[rows, last], 1.0)
    reaches = (cumulative < limit[:, None]).sum(-1)  # index of the token that reaches the limit
    last = np.where(top_p < 1, np.minimum(reaches, last), last)
    mass = np.where((top_k > 0) | (top_p < 1), cumulative[rows, last], 1.0)
    index = np.minimum((cumulative <= (uniform * mass)[:, None]).sum(-1), last)
    return ids[rows, index]
