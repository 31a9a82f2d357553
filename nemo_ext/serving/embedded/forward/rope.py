"""Rotary position embedding as one complex multiplication."""

import torch

from nemo_ext.models.rope import inverse_frequencies
from nemo_ext.models.shape import ModelShape


def rotations(shape: ModelShape, length: int, dtype: torch.dtype) -> torch.Tensor:
    """Complex [length, head_dim / 2]: unit numbers that turn pair i of a query or key at each position."""
    angles = torch.outer(torch.arange(length).float(), inverse_frequencies(shape)).to(dtype)
    return torch.complex(angles.cos(), angles.sin())
