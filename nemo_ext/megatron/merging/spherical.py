"""Spherical interpolation of tensors as coefficients of a sum, by the products of every two of them.

SLERP of u and v by t is sin((1 - t) w) / sin w u + sin(t w) / sin w v, w being the angle between them; where they are
all but parallel it is (1 - t) u + t v. So are the sums that come about step by step of several: the angle to the next
one follows from the same products.
"""

import math
from collections.abc import Iterator

import torch

LINEAR_ABOVE = 0.9995
"""Cosines, of either sign, at which the interpolation is linear; mergekit's."""


def products(passes: Iterator[list[torch.Tensor]]) -> torch.Tensor:
    """float64 [models, models]: the inner product of every two models' tensors."""
    total: torch.Tensor | None = None
    for models in passes:
        flat = torch.stack([each.reshape(-1) for each in models]).double()
        part = flat @ flat.T
        total = part if total is None else total + part
    assert total is not None, "a tensor has rows"
    return total


def slerp(gram: torch.Tensor, first: torch.Tensor, second: torch.Tensor, t: float) -> torch.Tensor:
    """Coefficients [models] of the interpolation between two sums of the models, given by theirs."""
    norms = [math.sqrt(max(0.0, float(each @ gram @ each))) for each in (first, second)]
    norms = [norm if norm > 1e-8 else 1.0 for norm in norms]
    cosine = max(-1.0, min(1.0, float(first @ gram @ second) / (norms[0] * norms[1])))
    if abs(cosine) > LINEAR_ABOVE:
        return (1 - t) * first + t * second
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * first + math.sin(t * angle) * second) / math.sin(angle)
