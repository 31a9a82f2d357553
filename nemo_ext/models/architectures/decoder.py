"""Costs of Llama's decoder: each layer is grouped-query attention and a gated MLP, both after an RMSNorm.

Counted for the layers that run on GPUs: Transformer Engine's, fused attention that stores no scores, fused SwiGLU, no
attention dropout; hidden dropout keeps nothing. With an ungated MLP of 4 x hidden and as many key-value heads as heads a
layer keeps Korthikanti et al.'s 34 x hidden bytes per token in 16 bit (arXiv 2205.05198), less their stored attention scores
and dropout masks.
"""

from nemo_ext.models.layer_cost import LayerCost
from nemo_ext.models.shape import ModelShape


def layers(shape: ModelShape) -> list[LayerCost]:
    """All alike."""
    return [attention(shape) + mlp(shape)] * shape.num_layers


def attention(shape: ModelShape) -> LayerCost:
    """A norm, the projections of queries, keys and values, causal attention, and the projection of its result.

    FLOPs: scores and values are L x L x head_dim products per head, 2 FLOPs per multiply-add, half of them causal. Kept:
    the norm's input and output, rotated queries and keys, values, attention's result, and a softmax statistic per head.
    """
    hidden, queries, keys = shape.hidden_size, shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    matrices = hidden * 2 * (queries + keys)
    return LayerCost(
        split_parameters=matrices + shape.qkv_bias * (queries + 2 * keys),
        whole_parameters=hidden,
        matmul_parameters=matrices,
        kv_parameters=2 * hidden * keys,
        flops_per_squared_token=2 * queries,
        kept_whole=2 * hidden,
        kept_split=2 * queries + 2 * keys,
        kept_statistics=shape.num_heads,
        kept_in_context=queries,
        kept_in_context_repeated=2 * (queries - keys),
        gradients_whole=2 * hidden,
        gradients_split=2 * queries,
        peak_split=2 * queries + 2 * keys,
        kv_per_token=2 * keys,
    )


def mlp(shape: ModelShape, gated: bool = True) -> LayerCost:
    """A norm, the projection up (two of them when `gated`), the activation function, and the projection down."""
    hidden, widths = shape.hidden_size, (3 if gated else 2) * shape.ffn_size
    return LayerCost(
        split_parameters=hidden * widths,
        whole_parameters=hidden,
        matmul_parameters=hidden * widths,
        kept_whole=2 * hidden,
        kept_split=widths,
        gradients_whole=2 * hidden,
        gradients_split=widths,
        peak_split=widths,
    )
