"""A Llama-architecture Hugging Face folder: its config.json and its safetensors. Nothing here computes."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open


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
    raw = json.loads(path.read_text())
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
        rope=_rope_parameters(raw),
    )


def _refuse_unsupported(raw: dict[str, Any], path: Path) -> None:
    architectures = raw.get("architectures") or []
    if architectures != ["LlamaForCausalLM"]:
        raise ValueError(f"{path}: architectures={architectures}; the embedded server runs ['LlamaForCausalLM']")
    for key, only in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if raw.get(key, only) != only:
            raise ValueError(f"{path}: {key}={raw[key]!r}; the embedded server computes only {only!r}")


def _rope_parameters(raw: dict[str, Any]) -> dict[str, Any]:
    """One dict from either spelling: rope_parameters (transformers 5) or rope_theta with rope_scaling (older)."""
    rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    rope.setdefault("rope_type", rope.pop("type", "default"))
    rope.setdefault("rope_theta", raw.get("rope_theta", 10000.0))
    return rope


def read_weights(folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every tensor of the folder's safetensors, by Hugging Face name, as `dtype`.

    Raises:
        ValueError: the folder has no safetensors.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{folder}: no *.safetensors; convert the checkpoint first")
    weights = {}
    for path in files:
        with safe_open(path, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118  (not a mapping)
                weights[name] = handle.get_tensor(name).to(dtype)
    return weights


def read_eos_ids(folder: Path) -> list[int]:
    """End-of-sequence ids: generation_config.json's, else config.json's. Sampling defaults there are not used."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        eos = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
        if eos is not None:
            return list(eos) if isinstance(eos, list) else [eos]
    return []
