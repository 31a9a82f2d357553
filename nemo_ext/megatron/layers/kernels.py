"""Choose the kernels a transformer layer is made of, in one place, and say which were chosen and why.

With CUDA and Transformer Engine the layers are Transformer Engine's (unproven here: there was no GPU). Otherwise they
are megatron-core's local layers with the attention and the norm of attention.py. Context parallelism always uses that
attention: it splits a pack anywhere, where Transformer Engine's wants every sample padded to a multiple of the ranks.
"""

import importlib.util
from dataclasses import dataclass, replace

import torch
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.transformer.spec_utils import ModuleSpec

from nemo_ext.megatron.layers.attention import PackedAttention, RMSNorm
from nemo_ext.megatron.layers.dropout_layer import DropoutLayer
from nemo_ext.megatron.settings import ForwardSettings, Optimisation


@dataclass(frozen=True)
class Layers:
    layer: ModuleSpec
    norm: type
    """The norm after the last layer."""
    own_attention: bool
    """Whether attention is PackedAttention, which rotates queries and keys itself."""
    reason: str


def hidden_dropout(settings: ForwardSettings) -> float:
    """0 where nothing is trained."""
    return settings.hidden_dropout if isinstance(settings, Optimisation) else 0.0


def choose_layers(settings: ForwardSettings, device: torch.device) -> Layers:
    """The layers for these settings on this device.

    Raises:
        ValueError: settings that only Transformer Engine's layers can follow, where they cannot be used.
    """
    chosen = _transformer_engine(settings) if uses_transformer_engine(settings, device) else _local(settings, device)
    if not (probability := hidden_dropout(settings)):
        return chosen
    params = {"hidden_dropout": probability}
    layer = ModuleSpec(module=DropoutLayer, params=params, submodules=chosen.layer.submodules)
    return replace(chosen, layer=layer, reason=f"{chosen.reason}, dropout of {probability}")


def _local(settings: ForwardSettings, device: torch.device) -> Layers:
    why = _why_local(settings, device)
    wanted = {
        "layers": settings.layers if settings.layers == "transformer_engine" else None,
        "fp8": settings.fp8,
        "use_precision_aware_optimizer": isinstance(settings, Optimisation) and settings.use_precision_aware_optimizer,
    }
    for name, value in wanted.items():
        if value:
            raise ValueError(f"{name}={value}: it needs Transformer Engine's kernels, but {why}; leave it unset")
    spec = get_gpt_layer_local_spec(normalization="RMSNorm")
    spec.submodules.input_layernorm = RMSNorm
    spec.submodules.pre_mlp_layernorm = RMSNorm
    spec.submodules.self_attention.submodules.core_attention = PackedAttention
    return Layers(spec, RMSNorm, True, f"megatron-core's local layers, torch attention on packed samples ({why})")


def _transformer_engine(settings: ForwardSettings) -> Layers:
    from megatron.core.extensions.transformer_engine import TENorm
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_with_transformer_engine_spec

    spec = get_gpt_layer_with_transformer_engine_spec()
    reason = "Transformer Engine's layers (it is installed)"
    if settings.fp8:
        reason += f", {settings.fp8} products with {settings.fp8_recipe} scaling"
    if settings.context_parallel_size == 1:
        return Layers(spec, TENorm, False, reason + ", its fused attention on packed samples")
    spec.submodules.self_attention.submodules.core_attention = PackedAttention
    return Layers(spec, TENorm, True, reason + ", torch attention (context parallelism splits packs anywhere)")


def uses_transformer_engine(settings: ForwardSettings, device: torch.device) -> bool:
    return settings.layers != "local" and device.type == "cuda" and has("transformer_engine")


def _why_local(settings: ForwardSettings, device: torch.device) -> str:
    if settings.layers == "local":
        return "layers=local"
    return "there is no GPU" if device.type == "cpu" else "Transformer Engine is not installed"


def has(module: str) -> bool:
    """Whether a package is installed, without importing it."""
    return importlib.util.find_spec(module) is not None
