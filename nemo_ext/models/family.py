"""Model families: what tells one from another, and how a `model_type` becomes one. Light imports only.

A family is a file: a config.json with `model_type: qwen2` is read as nemo_ext/models/families/qwen2.py says. Such a file has
    FAMILY = Family(...)
and is all there is to add where the `architecture` is there: a file of that name in nemo_ext/models/architectures counts
what its layers cost (parameters, FLOPs, memory), one in nemo_ext/megatron/families builds them, and one in
nemo_ext/megatron/weights/families maps their tensors. The decoder is Llama's: RMSNorm, rotary attention with grouped
queries, a gated MLP, every layer alike.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nemo_ext import plug_ins
from nemo_ext.models import families
from nemo_ext.models.head import SCORE

ONLY: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),  # on the output projection too, which only Llama variants have
    "mlp_bias": (False,),
    "use_sliding_window": (False,),  # Qwen2's: a window in some layers and not in others
    "partial_rotary_factor": (1.0,),
    "quantization_config": (),
}
"""Keys that may be absent, null or one of these: what the mapping and the layers would otherwise get wrong."""

OUTER: Mapping[str, str] = {
    "embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "decoder.final_layernorm.weight": "model.norm.weight",
    "output_layer.weight": "lm_head.weight",
    SCORE: SCORE,
}
LAYER: Mapping[str, tuple[str, ...]] = {
    "self_attention.linear_qkv.layer_norm_weight": ("input_layernorm.weight",),
    "self_attention.linear_qkv.weight": (
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.v_proj.weight",
    ),
    "self_attention.linear_qkv.bias": ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
    "self_attention.linear_proj.weight": ("self_attn.o_proj.weight",),
    "mlp.linear_fc1.layer_norm_weight": ("post_attention_layernorm.weight",),
    "mlp.linear_fc1.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "mlp.linear_fc2.weight": ("mlp.down_proj.weight",),
}


@dataclass(frozen=True, kw_only=True)
class Family:
    defaults: Mapping[str, Any]
    """What transformers takes for a key that a config leaves out."""
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: ONLY)
    """Keys of a config that may be absent, null or one of these."""
    qkv_bias: bool = False
    """Query, key and value projections have biases."""
    has_sliding_window: bool = False
    """Whether a config's sliding_window is meant; Qwen2's says what it would be if it were used."""
    classifier: str | None = None
    """transformers' class of it with a regression head; None: it is not trained with one."""
    architecture: str = "decoder"
    """A file name in nemo_ext/models/architectures, nemo_ext/megatron/families and nemo_ext/megatron/weights/families."""
    extra_keys: tuple[str, ...] = ()
    """Keys of a config that only this architecture reads, all of them needed: a pattern of layers, the size of a state."""
    layer_prefix: str = "model.layers."
    """What the names of a layer's tensors begin with on the hub, before its number."""
    outer: Mapping[str, str] = field(default_factory=lambda: OUTER)
    """Megatron name -> name on the hub, outside the layers."""
    layer: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: LAYER)
    """Checkpoint key inside a layer -> names on the hub behind the layer's number; not every family has the bias."""


def model_types() -> list[str]:
    return plug_ins.names(families)


def family_of(model_type: str | None) -> Family:
    """The family of a config.json's `model_type`.

    Raises:
        ValueError: no such file, with the model types there are.
    """
    if model_type not in model_types():
        raise ValueError(f"model_type={model_type!r} is not supported; it may be one of {model_types()}")
    family = importlib.import_module(f"nemo_ext.models.families.{model_type}").FAMILY
    assert isinstance(family, Family), "a plug-in's FAMILY is one"
    return family
