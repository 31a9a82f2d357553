"""Llama tensors in Hugging Face's form and in Megatron's, both ways, as pure functions.

Megatron fuses what Hugging Face keeps apart: `linear_qkv` holds, for each key-value group, that group's query heads,
its key head and its value head; `linear_fc1` holds gate then up. Rotary halves are laid out alike, so nothing is
permuted inside a head. Layer parameters are named by their checkpoint key (`mlp.linear_fc1.weight`) and a layer index;
in a checkpoint all layers of one key are stacked along a new first dimension.
"""

from collections.abc import Mapping
from typing import Protocol

import torch

from nemo_ext.megatron.shape import ModelShape

EMBEDDING = "embedding.word_embeddings.weight"
OUTPUT = "output_layer.weight"
FINAL_NORM = "decoder.final_layernorm.weight"
QKV = "self_attention.linear_qkv.weight"
FC1 = "mlp.linear_fc1.weight"
LAYER_PREFIX = "decoder.layers."

OUTER: Mapping[str, str] = {
    EMBEDDING: "model.embed_tokens.weight",
    FINAL_NORM: "model.norm.weight",
    OUTPUT: "lm_head.weight",
}
"""Megatron name -> Hugging Face name, outside the layers."""

LAYER: Mapping[str, tuple[str, ...]] = {
    "self_attention.linear_qkv.layer_norm_weight": ("input_layernorm.weight",),
    QKV: ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
    "self_attention.linear_proj.weight": ("self_attn.o_proj.weight",),
    "mlp.linear_fc1.layer_norm_weight": ("post_attention_layernorm.weight",),
    FC1: ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "mlp.linear_fc2.weight": ("mlp.down_proj.weight",),
}
"""Checkpoint key inside a layer -> Hugging Face names inside `model.layers.<i>.`."""

ROW_PARALLEL = ("self_attention.linear_proj.weight", "mlp.linear_fc2.weight")
"""Split along their columns (dimension 1) over the tensor parallel ranks; every other matrix along its rows."""

LOCAL_NORMS = {
    "input_layernorm.weight": "self_attention.linear_qkv.layer_norm_weight",
    "pre_mlp_layernorm.weight": "mlp.linear_fc1.layer_norm_weight",
}
"""The local layers keep norms as modules of their own; Transformer Engine's fuse them. Checkpoints use the fused
names."""


class Source(Protocol):
    """Hugging Face weights by name; `rows` and `columns` are half-open ranges, None for all."""

    def read(
        self, name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None
    ) -> torch.Tensor: ...


def join_qkv(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, head_dim: int) -> torch.Tensor:
    """[groups x heads_per_group x head_dim, hidden] and two of [groups x head_dim, hidden] -> [all rows, hidden]."""
    hidden = query.shape[1]
    groups = key.shape[0] // head_dim
    parts = [tensor.reshape(groups, -1, hidden) for tensor in (query, key, value)]
    return torch.cat(parts, dim=1).reshape(-1, hidden)


def split_qkv(qkv: torch.Tensor, shape: ModelShape) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The inverse of `join_qkv` for a whole layer."""
    heads = shape.num_heads // shape.num_kv_heads
    grouped = qkv.reshape(shape.num_kv_heads, (heads + 2) * shape.head_dim, shape.hidden_size)
    parts = grouped.split([heads * shape.head_dim, shape.head_dim, shape.head_dim], dim=1)
    query, key, value = (part.reshape(-1, shape.hidden_size) for part in parts)
    return query, key, value


def hf_layer_tensors(key: str, layer: int, tensor: torch.Tensor, shape: ModelShape) -> dict[str, torch.Tensor]:
    """One layer's whole tensor of checkpoint key `key` -> its Hugging Face tensors by full name."""
    names = [f"model.layers.{layer}.{name}" for name in LAYER[key]]
    if key == QKV:
        return dict(zip(names, split_qkv(tensor, shape), strict=True))
    if key == FC1:
        return dict(zip(names, tensor.split(shape.ffn_size, dim=0), strict=True))
    return {names[0]: tensor}


def canonical_name(name: str, layer_offset: int = 0) -> tuple[str, int | None]:
    """A GPTModel parameter's name -> (checkpoint key, global layer index or None outside the layers).

    Raises:
        ValueError: no Llama parameter has that name.
    """
    if not name.startswith(LAYER_PREFIX):
        if name not in OUTER:
            raise ValueError(f"no mapping for the Megatron parameter {name!r}")
        return name, None
    index, _, inner = name.removeprefix(LAYER_PREFIX).partition(".")
    inner = LOCAL_NORMS.get(inner, inner)
    if inner not in LAYER:
        raise ValueError(f"no mapping for the Megatron parameter {name!r}")
    return inner, int(index) + layer_offset


def megatron_shard(
    key: str, layer: int | None, source: Source, shape: ModelShape, rank: int, size: int, padded_vocab: int
) -> torch.Tensor:
    """What tensor parallel rank `rank` of `size` holds of one parameter, read slice by slice from `source`.

    The vocabulary is `padded_vocab` rows in all; rows past `shape.vocab_size` are zero.
    """
    if layer is None:
        if key == FINAL_NORM:
            return source.read(OUTER[key])
        name = OUTER[EMBEDDING if shape.tied_embeddings else key]
        return _vocabulary_rows(name, source, shape, rank, padded_vocab // size)
    names = [f"model.layers.{layer}.{name}" for name in LAYER[key]]
    if key == QKV:
        groups = shape.num_kv_heads // size
        kv_rows = groups * shape.head_dim
        query_rows = kv_rows * shape.num_heads // shape.num_kv_heads
        query, key_rows, value = (
            source.read(n, rows=_range(rank, r)) for n, r in zip(names, (query_rows, kv_rows, kv_rows), strict=True)
        )
        return join_qkv(query, key_rows, value, shape.head_dim)
    if key == FC1:
        rows = _range(rank, shape.ffn_size // size)
        return torch.cat([source.read(name, rows=rows) for name in names])
    if key in ROW_PARALLEL:
        columns = shape.ffn_size if key.startswith("mlp") else shape.num_heads * shape.head_dim
        return source.read(names[0], columns=_range(rank, columns // size))
    return source.read(names[0])


def _range(rank: int, each: int) -> tuple[int, int]:
    return rank * each, (rank + 1) * each


def _vocabulary_rows(name: str, source: Source, shape: ModelShape, rank: int, each: int) -> torch.Tensor:
    start, end = _range(rank, each)
    start, end = min(start, shape.vocab_size), min(end, shape.vocab_size)
    rows = source.read(name, rows=(start, end))
    return torch.cat([rows, rows.new_zeros(each - len(rows), shape.hidden_size)])
