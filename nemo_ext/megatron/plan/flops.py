"""Arithmetic of a training step of packed samples. Light imports only: the launcher plans with it.

Conventions: a multiply-add is 2 FLOPs; backward is twice forward; only matrix products count (not norms, rotations,
softmax or the optimizer); the embedding is a lookup and costs nothing, the output layer is counted for every token,
trained or not; attention is causal within each sample, which halves its square; the vocabulary is not padded. What is
recomputed is no model FLOP (that is what MFU divides) but a hardware FLOP.

These are also the conventions of Megatron-Bridge's published figures: tests/nemo_ext/megatron_plan/test_flops.py.
"""

from collections.abc import Iterable

from nemo_ext.megatron.plan.pipeline import chunk_layers, recomputed_groups
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.models.layer_cost import LayerCost
from nemo_ext.models.shape import ModelShape

FORWARD_AND_BACKWARD = 3


def matmul_parameters(shape: ModelShape) -> int:
    """Weights that every token is multiplied with: all matrices but the embedding, output layer included."""
    return sum(layer.matmul_parameters for layer in shape.layers) + shape.output_rows * shape.hidden_size


def model_flops(shape: ModelShape, num_tokens: int, sum_of_squares: float) -> float:
    """FLOPs of forward and backward over samples of lengths L_i: num_tokens = sum L_i, sum_of_squares = sum L_i^2.

    Per token 6 x matmul_parameters, and what a layer's scan takes; per squared length attention's.
    """
    return _per_token(shape) * num_tokens + _per_squared_token(shape) * sum_of_squares


def _per_token(shape: ModelShape) -> float:
    scans = sum(layer.scan_flops_per_token for layer in shape.layers)
    return float(FORWARD_AND_BACKWARD * (2 * matmul_parameters(shape) + scans))


def _per_squared_token(shape: ModelShape) -> float:
    """FLOPs of all layers' attention per squared token of a sample, forward and backward."""
    return float(FORWARD_AND_BACKWARD * sum(layer.flops_per_squared_token for layer in shape.layers))


def step_flops(shape: ModelShape, lengths: Iterable[int]) -> float:
    """model_flops of one step over samples of these lengths."""
    sizes = list(lengths)
    return model_flops(shape, sum(sizes), sum(size * size for size in sizes))


def flops_per_token(shape: ModelShape, sample_length: float) -> float:
    """model_flops per token of samples of one length."""
    return _per_token(shape) + _per_squared_token(shape) * sample_length


def hardware_flops(shape: ModelShape, settings: TrainSettings, num_tokens: int, sum_of_squares: float) -> float:
    """model_flops and what activation recompute repeats: one more forward of the layers, or of their attention."""
    total = model_flops(shape, num_tokens, sum_of_squares)
    if settings.recompute_granularity == "selective":
        return total + _per_squared_token(shape) * sum_of_squares / FORWARD_AND_BACKWARD
    again = LayerCost.total(_recomputed(shape, settings))
    per_token = 2.0 * again.matmul_parameters + again.scan_flops_per_token
    return total + (per_token * num_tokens + again.flops_per_squared_token * sum_of_squares)


def _recomputed(shape: ModelShape, settings: TrainSettings) -> list[LayerCost]:
    """The layers that recompute_granularity=full runs again, of all stages."""
    stages = range(settings.pipeline_model_parallel_size)
    chunks = [layers for stage in stages for layers in chunk_layers(shape, settings, stage)]
    return [layer for layers in chunks for group in recomputed_groups(layers, settings)[0] for layer in group]
