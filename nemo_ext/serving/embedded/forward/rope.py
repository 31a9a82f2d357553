"""Rotary position embedding: the angles, scaled as the checkpoint asks.

Angles are rounded to float32 as transformers does (modeling_rope_utils), because checkpoints were trained with that
rounding: at position 8,000 it moves an angle by up to 5e-4, far above this engine's own error.
"""

import math
from typing import Any

import torch


def inverse_frequencies(rope: dict[str, Any], head_dim: int) -> torch.Tensor:
    """float32 [head_dim / 2]: radians per position of each pair of dimensions.

    Raises:
        ValueError: a rope_type other than default, linear and llama3.
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
    frequencies = 1.0 / (rope["rope_theta"] ** exponent)
    kind = rope["rope_type"]
    if kind == "default":
        return frequencies
    if kind == "linear":
        return frequencies / rope["factor"]
    if kind == "llama3":
        return _llama3(frequencies, rope)
    raise ValueError(f"config.json: rope_type={kind!r}; the embedded server knows default, linear and llama3")


def _llama3(frequencies: torch.Tensor, rope: dict[str, Any]) -> torch.Tensor:
    """Llama 3.1: wavelengths above the trained context are stretched by `factor`, short ones kept, between blended."""
    context, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    wavelength = 2 * math.pi / frequencies
    stretched = torch.where(wavelength > context / low, frequencies / rope["factor"], frequencies)
    smooth = (context / wavelength - low) / (high - low)
    blended = (1 - smooth) * stretched / rope["factor"] + smooth * stretched
    between = (wavelength >= context / high) & (wavelength <= context / low)
    return torch.where(between, blended, stretched)


def rotations(rope: dict[str, Any], head_dim: int, length: int, dtype: torch.dtype) -> torch.Tensor:
    """Complex [length, head_dim / 2]: unit numbers that turn pair i of a query or key at each position."""
    angles = torch.outer(torch.arange(length).float(), inverse_frequencies(rope, head_dim)).to(dtype)
    return torch.complex(angles.cos(), angles.sin())
