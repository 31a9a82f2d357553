"""The sign election of TIES: of the differences at one place those that agree with the sum's sign are taken."""

from collections.abc import Sequence

import torch


def elected(differences: list[torch.Tensor], weights: Sequence[float], normalize: bool) -> torch.Tensor:
    """The sum of the weighted differences whose sign is that of the sum over all; with `normalize`, over the weights
    of those that were taken. A sum of 0 counts as positive, a difference of 0 as of no sign (arXiv 2306.01708,
    section 4)."""
    weighted = [each * weight for each, weight in zip(differences, weights, strict=True)]
    positive = torch.stack(weighted).sum(0) >= 0
    total, divisor = torch.zeros_like(weighted[0]), torch.zeros_like(weighted[0])
    for each, weight in zip(weighted, weights, strict=True):
        agrees = torch.where(positive, each > 0, each < 0)
        total += torch.where(agrees, each, 0)
        divisor += agrees * weight
    return total / torch.where(divisor == 0, 1, divisor) if normalize else total
