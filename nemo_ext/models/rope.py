"""Rotary position embedding: how fast each pair of a head's dimensions turns, in the trainer and the embedded server alike.

The frequencies are float32, as transformers computes them, because checkpoints were trained with that rounding: at position
8,000 it moves an angle by up to 5e-4.
"""

import math

import torch

from nemo_ext.models.shape import ModelShape


def inverse_frequencies(shape: ModelShape) -> torch.Tensor:
    """Radians per position, fp32 [head_dim / 2], bit-equal to transformers' default and "llama3" rope.

    megatron-core's own llama3 scaling fixes low_freq_factor=1, high_freq_factor=4 and 8,192 original positions; here
    they are the config's. Operations keep transformers' order (modeling_rope_utils._compute_llama3_parameters).
    """
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.int64).float() / shape.head_dim
    frequencies = 1.0 / (shape.rope_theta**exponents)
    scaling = shape.rope_scaling
    if scaling is None:
        return frequencies
    longest = scaling.original_max_positions / scaling.low_freq_factor
    shortest = scaling.original_max_positions / scaling.high_freq_factor
    wavelength = 2 * math.pi / frequencies
    scaled = torch.where(wavelength > longest, frequencies / scaling.factor, frequencies)
    smooth = (scaling.original_max_positions / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    between = (1 - smooth) * scaled / scaling.factor + smooth * scaled
    is_between = (wavelength >= shortest) & (wavelength <= longest)
    return torch.where(is_between, between, scaled)
