"""Costs of Mixtral's decoder: Llama's with several MLPs (experts) in each layer, of which a router chooses for each token.

For serving alone: there are no layers to train it with, so what training keeps is not counted.
"""

from nemo_ext.models.architectures.decoder import attention, mlp
from nemo_ext.models.layer_cost import LayerCost
from nemo_ext.models.shape import ModelShape


def layers(shape: ModelShape) -> list[LayerCost]:
    """All alike."""
    return [attention(shape) + experts(shape)] * shape.num_layers


def experts(shape: ModelShape) -> LayerCost:
    """A norm, the router, and the experts: all are held, and a token goes through `num_experts_per_tok` of them.

    The router stays in 16 bit, whole on every GPU, as in NVIDIA's quantised checkpoints and TensorRT-LLM.
    """
    one = mlp(shape)
    held, used = shape.extra["num_local_experts"], shape.extra["num_experts_per_tok"]
    return LayerCost(
        split_parameters=held * one.split_parameters,
        whole_parameters=one.whole_parameters + held * shape.hidden_size,
        matmul_parameters=used * one.matmul_parameters,
        idle_parameters=(held - used) * one.matmul_parameters,
        peak_split=used * one.peak_split,
    )
