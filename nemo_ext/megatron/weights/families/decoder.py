"""The tensors of Llama's decoder and its like, every layer alike.

Megatron fuses what Hugging Face keeps apart: `linear_qkv` holds, for each key-value group, that group's query heads,
its key head and its value head; `linear_fc1` holds gate then up. Rotary halves are laid out alike, so nothing is
permuted inside a head. So a Hugging Face tensor is some runs of rows of a Megatron one: `pieces` lists them, and both can be
read and written a few rows at a time.
"""

from collections.abc import Iterator, Mapping

import torch

from nemo_ext.megatron.weights.mapping import EMBEDDING, LAYER_PREFIX, OUTPUT, Piece, Rows, Source
from nemo_ext.models.family import LAYER, OUTER, Family
from nemo_ext.models.head import SCORE, Regression
from nemo_ext.models.shape import ModelShape

FINAL_NORM = "decoder.final_layernorm.weight"
QKV = "self_attention.linear_qkv.weight"
QKV_BIAS = "self_attention.linear_qkv.bias"
FC1 = "mlp.linear_fc1.weight"

ROW_PARALLEL = ("self_attention.linear_proj.weight", "mlp.linear_fc2.weight")
"""Split along their columns (dimension 1) over the tensor parallel ranks; every other matrix along its rows."""

LOCAL_NORMS = {
    "input_layernorm.weight": "self_attention.linear_qkv.layer_norm_weight",
    "pre_mlp_layernorm.weight": "mlp.linear_fc1.layer_norm_weight",
}
"""The local layers keep norms as modules of their own; Transformer Engine's fuse them. Checkpoints use the fused
names."""


def layer_sizes(shape: ModelShape, layer: int) -> dict[str, tuple[int, ...]]:
    """Checkpoint key inside a layer -> size of one layer's whole Megatron tensor, for the keys this model has."""
    query, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    hidden, ffn = shape.hidden_size, shape.ffn_size
    sizes: dict[str, tuple[int, ...]] = {
        "self_attention.linear_qkv.layer_norm_weight": (hidden,),
        QKV: (query + 2 * keys, hidden),
        QKV_BIAS: (query + 2 * keys,),
        "self_attention.linear_proj.weight": (hidden, query),
        "mlp.linear_fc1.layer_norm_weight": (hidden,),
        FC1: (2 * ffn, hidden),
        "mlp.linear_fc2.weight": (hidden, ffn),
    }
    return sizes if shape.qkv_bias else {key: size for key, size in sizes.items() if key != QKV_BIAS}


def outer_sizes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """The same for the tensors outside the layers, without padding of the vocabulary."""
    embedding = (shape.vocab_size, shape.hidden_size)
    sizes: dict[str, tuple[int, ...]] = {EMBEDDING: embedding, FINAL_NORM: (shape.hidden_size,)}
    if isinstance(shape.head, Regression):
        return {**sizes, SCORE: (shape.head.outputs, shape.hidden_size)}
    return sizes if shape.tied_embeddings else {**sizes, OUTPUT: embedding}


def pieces(shape: ModelShape) -> Iterator[Piece]:
    """Every tensor of the model's Hugging Face form, from the embedding to the head."""
    outer, family = outer_sizes(shape), shape.family
    yield _outer_piece(EMBEDDING, outer, family)
    for layer in range(shape.num_layers):
        for key, size in layer_sizes(shape, layer).items():
            for name, rows in zip(family.layer[key], _parts(key, size[0], shape), strict=True):
                total = sum(count for _, count in rows)
                yield Piece(f"{family.layer_prefix}{layer}.{name}", (total, *size[1:]), key, layer, rows)
    yield from (_outer_piece(key, outer, family) for key in (FINAL_NORM, OUTPUT, SCORE) if key in outer)


def _outer_piece(key: str, sizes: Mapping[str, tuple[int, ...]], family: Family) -> Piece:
    return Piece(family.outer[key], sizes[key], key, None, ((0, sizes[key][0]),))


def _parts(key: str, num_rows: int, shape: ModelShape) -> list[Rows]:
    """The rows of each Hugging Face tensor in the Megatron tensor `key` of one layer, in the order of the family's names."""
    if key in (QKV, QKV_BIAS):
        query, head = shape.num_heads // shape.num_kv_heads * shape.head_dim, shape.head_dim
        starts = [group * (query + 2 * head) for group in range(shape.num_kv_heads)]
        return [
            tuple((start + offset, count) for start in starts)
            for offset, count in ((0, query), (query, head), (query + head, head))
        ]
    if key == FC1:
        return [((0, shape.ffn_size),), ((shape.ffn_size, shape.ffn_size),)]
    return [((0, num_rows),)]


def join_qkv(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, head_dim: int) -> torch.Tensor:
    """[groups x heads_per_group x head_dim, hidden] and two of [groups x head_dim, hidden] -> [all rows, hidden].

    Biases, which have no second dimension, alike.
    """
    groups = key.shape[0] // head_dim
    parts = [tensor.reshape(groups, -1, *tensor.shape[1:]) for tensor in (query, key, value)]
    return torch.cat(parts, dim=1).flatten(0, 1)


def canonical_name(name: str, layer_offset: int = 0) -> tuple[str, int | None]:
    """A GPTModel parameter's name -> (checkpoint key, global layer index or None outside the layers).

    Raises:
        ValueError: no parameter of these models has that name.
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


def shard(
    key: str, layer: int | None, source: Source, shape: ModelShape, rank: int, size: int, padded_vocab: int
) -> torch.Tensor:
    """What tensor parallel rank `rank` of `size` holds of one parameter, read slice by slice from `source`.

    The vocabulary is `padded_vocab` rows in all; rows past `shape.vocab_size` are zero.
    """
    family = shape.family
    if layer is None:
        if key in (FINAL_NORM, SCORE):
            return source.read(family.outer[key])
        name = family.outer[EMBEDDING if shape.tied_embeddings else key]
        return _vocabulary_rows(name, source, shape, rank, padded_vocab // size)
    names = [f"{family.layer_prefix}{layer}.{name}" for name in family.layer[key]]
    if key in (QKV, QKV_BIAS):
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
