"""A Llama-architecture Hugging Face folder: its config.json and its safetensors. Nothing here computes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from nemo_ext.models.hub_folder import DEFAULT_THETA, check_rope, not_tied, read_json, weight_files, weight_map

EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class LlamaConfig:
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    tied: bool
    rope: dict[str, Any]
    """rope_type, rope_theta and, for llama3 and linear, the scaling factors (transformers 5's rope_parameters)."""


def read_config(folder: Path) -> LlamaConfig:
    """What the engine needs of config.json.

    Raises:
        ValueError: the folder has no config.json, or asks for something this engine does not compute.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder}: no config.json; the embedded server needs a local Hugging Face folder")
    raw = read_json(path)
    _refuse_unsupported(raw, path)
    heads = raw["num_attention_heads"]
    return LlamaConfig(
        vocab_size=raw["vocab_size"],
        hidden_size=raw["hidden_size"],
        num_layers=raw["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=raw.get("num_key_value_heads") or heads,
        head_dim=raw.get("head_dim") or raw["hidden_size"] // heads,
        rms_norm_eps=raw["rms_norm_eps"],
        max_position_embeddings=raw["max_position_embeddings"],
        tied=bool(raw.get("tie_word_embeddings", False)),
        rope=_rope_parameters(path, raw),
    )


def _refuse_unsupported(raw: dict[str, Any], path: Path) -> None:
    architectures = raw.get("architectures") or []
    if architectures != ["LlamaForCausalLM"]:
        raise ValueError(f"{path}: architectures={architectures}; the embedded server runs ['LlamaForCausalLM']")
    for key, only in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if raw.get(key, only) != only:
            raise ValueError(f"{path}: {key}={raw[key]!r}; the embedded server computes only {only!r}")


def _rope_parameters(path: Path, raw: dict[str, Any]) -> dict[str, Any]:
    """One dict from either spelling: rope_parameters (transformers 5) or rope_theta with rope_scaling (older)."""
    rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    rope.setdefault("rope_type", rope.pop("type", "default"))
    rope.setdefault("rope_theta", raw.get("rope_theta", DEFAULT_THETA))
    check_rope(path, rope["rope_type"], rope)
    return rope


def read_weights(folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The tensors that the folder's index lists (or all of model.safetensors), by Hugging Face name, as `dtype`.

    Raises:
        ValueError: the folder has no safetensors, a file lacks a tensor, or an output layer differs from the embedding
            that config.json ties it to.
    """
    files = weight_map(folder)
    weights = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as handle:
            names = [name for name, file in files.items() if file == path.name] if files else list(handle.keys())
            for name in names:
                weights[name] = handle.get_tensor(name).to(dtype)
    if read_config(folder).tied and OUTPUT in weights and not torch.equal(weights[OUTPUT], weights[EMBEDDING]):
        raise not_tied(folder, OUTPUT, EMBEDDING)
    return weights
