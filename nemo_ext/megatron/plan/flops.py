"""Arithmetic of a training step of packed samples. Light imports only: the launcher plans with it.

Conventions: a multiply-add is 2 FLOPs; backward is twice forward; only matrix products count (not norms, rotations,
softmax or the optimizer); the embedding is a lookup and costs nothing, the output layer is counted for every token,
trained or not; attention is causal within each sample, which halves its square; the vocabulary is not padded. What is
recomputed is no model FLOP (that is what MFU divides) but a hardware FLOP.

These are also the conventions of Megatron-Bridge's published figures: tests/nemo_ext/megatron_plan/test_flops.py.
"""

from collections.abc import Iterable

from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.models.shape import ModelShape

FORWARD_AND_BACKWARD = 3


def matmul_parameters(shape: ModelShape) -> int:
    """Weights that every token is multiplied with: all matrices but the embedding, output layer included."""
    return shape.num_layers * layer_matmul_parameters(shape) + shape.output_rows * shape.hidden_size


def layer_matmul_parameters(shape: ModelShape) -> int:
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    return shape.hidden_size * 2 * (queries + keys) + 3 * shape.hidden_size * shape.ffn_size


def model_flops(shape: ModelShape, num_tokens: int, sum_of_squares: float) -> float:
    """FLOPs of forward and backward over samples of lengths L_i: num_tokens = sum L_i, sum_of_squares = sum L_i^2.

    Per token 6 x matmul_parameters. Attention: scores and values are L x L x head_dim products per head, 2 FLOPs per
    multiply-add, two products, half of them causal, times 3: 6 x heads x head_dim x L^2 per layer.
    """
    return 2.0 * FORWARD_AND_BACKWARD * matmul_parameters(shape) * num_tokens + _attention(shape) * sum_of_squares


def _attention(shape: ModelShape) -> float:
    """FLOPs of all layers' attention per squared token of a sample, forward and backward."""
    return 2.0 * FORWARD_AND_BACKWARD * shape.num_layers * shape.num_heads * shape.head_dim


def step_flops(shape: ModelShape, lengths: Iterable[int]) -> float:
    """model_flops of one step over samples of these lengths."""
    sizes = list(lengths)
    return model_flops(shape, sum(sizes), sum(size * size for size in sizes))


def flops_per_token(shape: ModelShape, sample_length: float) -> float:
    """model_flops per token of samples of one length."""
    return 2.0 * FORWARD_AND_BACKWARD * matmul_parameters(shape) + _attention(shape) * sample_length


def hardware_flops(shape: ModelShape, settings: TrainSettings, num_tokens: int, sum_of_squares: float) -> float:
    """model_flops and what activation recompute repeats: one more forward of the layers, or of their attention."""
    total = model_flops(shape, num_tokens, sum_of_squares)
    attention = _attention(shape) * sum_of_squares / FORWARD_AND_BACKWARD
    if settings.recompute_granularity == "selective":
        return total + attention
    if settings.recompute_granularity == "full":
        layers = 2.0 * shape.num_layers * layer_matmul_parameters(shape) * num_tokens + attention
        return total + layers * recomputed_share(shape, settings)
    return total


def recomputed_share(shape: ModelShape, settings: TrainSettings) -> float:
    """Share of the layers that recompute_granularity=full runs again."""
    if settings.recompute_method == "uniform":
        return 1.0
    chunks = settings.pipeline_model_parallel_size * (settings.virtual_pipeline_model_parallel_size or 1)
    return min(1.0, settings.recompute_num_layers * chunks / shape.num_layers)
