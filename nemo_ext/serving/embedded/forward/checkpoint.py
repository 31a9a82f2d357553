"""A Llama-architecture Hugging Face folder: its config.json and its safetensors. Nothing here computes."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from nemo_ext.models.hub_folder import not_tied, read_json, weight_files, weight_map
from nemo_ext.models.shape import ModelShape

EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


def read_config(folder: Path) -> ModelShape:
    """What the engine needs of config.json.

    Raises:
        ValueError: the folder has no config.json, or asks for something this engine does not compute.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder}: no config.json; the embedded server needs a local Hugging Face folder")
    _refuse_unsupported(read_json(path), path)
    return ModelShape.from_hf(folder)


def _refuse_unsupported(raw: dict[str, Any], path: Path) -> None:
    architectures = raw.get("architectures") or []
    if architectures != ["LlamaForCausalLM"]:
        raise ValueError(f"{path}: architectures={architectures}; the embedded server runs ['LlamaForCausalLM']")
    for key, only in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if raw.get(key, only) != only:
            raise ValueError(f"{path}: {key}={raw[key]!r}; the embedded server computes only {only!r}")


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
    if (
        read_config(folder).tied_embeddings
        and OUTPUT in weights
        and not torch.equal(weights[OUTPUT], weights[EMBEDDING])
    ):
        raise not_tied(folder, OUTPUT, EMBEDDING)
    return weights
