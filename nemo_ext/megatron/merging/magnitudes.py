"""The k-th largest magnitude of a tensor that is never in memory as a whole, exactly.

Magnitudes of fp32 are in the order of their bits. A first pass counts the upper 16 bits, which say where the k-th is;
a second one the lower 16 bits of those that share them.
"""

import numpy as np
import torch

from nemo_ext.megatron.merging.method import Passes

BINS = 1 << 16


def smallest_kept(passes: Passes, density: float) -> list[float]:
    """Of each model, the smallest of the `density` of its elements that are largest; at least one element is kept."""
    upper: np.ndarray | None = None
    for models in passes():
        counts = np.stack([np.bincount(_bits(each) >> 16, minlength=BINS) for each in models])
        upper = counts if upper is None else upper + counts
    assert upper is not None, "a tensor has rows"
    wanted = [max(1, int(density * int(counts.sum()))) for counts in upper]
    tops, left = zip(*(_bin_of(counts, k) for counts, k in zip(upper, wanted, strict=True)), strict=True)
    lower = np.zeros((len(tops), BINS), np.int64)
    for models in passes():
        for place, (each, top) in enumerate(zip(models, tops, strict=True)):
            bits = _bits(each)
            lower[place] += np.bincount(bits[bits >> 16 == top] & (BINS - 1), minlength=BINS)
    found = [(top << 16) | _bin_of(counts, k)[0] for top, counts, k in zip(tops, lower, left, strict=True)]
    return [float(np.uint32(bits).view(np.float32)) for bits in found]


def _bits(values: torch.Tensor) -> np.ndarray:
    """int64, in the order of the magnitudes."""
    return values.abs().contiguous().reshape(-1).numpy().view(np.uint32).astype(np.int64)


def _bin_of(counts: np.ndarray, k: int) -> tuple[int, int]:
    """The bin of the k-th largest, and which of that bin's it is, from the largest."""
    above = np.cumsum(counts[::-1])
    place = int(np.searchsorted(above, k))
    return len(counts) - 1 - place, k - int(above[place] - counts[::-1][place])
