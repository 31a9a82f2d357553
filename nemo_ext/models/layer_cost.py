"""Costs of one layer: parameters, arithmetic, and memory in training and serving. Light imports only.

An architecture's file (nemo_ext/models/architectures) makes these; the planners add up those of a pipeline stage and put
in the dtype, the tensor parallel size and the recompute settings.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer, or a part of one, of the whole model: before anything is split over GPUs. Counts are of elements, and
    per token where they are of activations. "Split" is what tensor parallelism shares out, "whole" what each of its ranks
    has all of; sequence parallelism splits activations that are whole.

    For the planners the parts of a layer, and layers, add up: `attention(shape) + mlp(shape)`.
    """

    split_parameters: int = 0
    """Of matrices, and biases of those whose output is split."""
    whole_parameters: int = 0
    """Of norms, and of the router of experts."""
    matmul_parameters: int = 0
    """Of the split ones, as many as every token is multiplied with; fp8 is for these and idle_parameters alone."""
    idle_parameters: int = 0
    """Of the split ones, as many as a token is not multiplied with: experts that it is not sent to."""
    kv_parameters: int = 0
    """Of matmul_parameters, those that make keys and values. A server on more GPUs than there are key-value heads holds
    them several times."""

    scan_flops_per_token: int = 0
    """FLOPs of a forward pass beside the two for each of matmul_parameters: a state space model's scan."""
    flops_per_squared_token: int = 0
    """FLOPs of a forward pass per squared length of a sample: attention's scores and values."""

    kept_whole: int = 0
    """Kept for the backward pass: what norms take and give."""
    kept_split: int = 0
    """Kept for the backward pass: what projections and activation functions give."""
    kept_statistics: int = 0
    """Kept in fp32 and split: attention's softmax statistics, which selective recompute makes again."""
    kept_in_context: int = 0
    """Kept beside these with context parallelism, split: one more copy of attention's result."""
    kept_in_context_repeated: int = 0
    """The same where a context parallel rank's heads are not whole groups: keys and values for each query head."""
    gradients_whole: int = 0
    """Held at once by the layer's backward pass: gradients of what its projections take, gathered where they are split."""
    gradients_split: int = 0
    """Held at once by the layer's backward pass: gradients of what is split."""

    peak_split: int = 0
    """Most that a forward pass without a backward one holds at once between the layer's input and output, split."""
    kv_per_token: int = 0
    """Keys and values that a server caches, over all key-value heads."""
    state_bytes: int = 0
    """Bytes that a server holds for a sequence of any length, split: a state space model's."""

    def __add__(self, other: Self) -> Self:
        """The parts of a layer, one after the other."""
        return self.total([self, other])

    @classmethod
    def total(cls, layers: Collection[Self]) -> Self:
        """All of them, one after another: the peak is the highest one's, everything else is a sum."""
        sums = {each.name: sum(getattr(layer, each.name) for layer in layers) for each in fields(cls)}
        return cls(**sums | {"peak_split": max((layer.peak_split for layer in layers), default=0)})
