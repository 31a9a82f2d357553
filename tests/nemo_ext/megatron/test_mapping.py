"""Hugging Face -> Megatron -> Hugging Face, bit for bit, at any tensor parallel size."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.megatron.weights.families.decoder import (
    FC1,
    QKV,
    QKV_BIAS,
    ROW_PARALLEL,
    canonical_name,
    join_qkv,
    layer_sizes,
    pieces,
    shard,
)
from nemo_ext.megatron.weights.hf import RandomSource
from nemo_ext.megatron.weights.mapping import EMBEDDING, OUTPUT
from nemo_ext.models.family import LAYER
from nemo_ext.models.shape import ModelShape


def make_shape(
    size: int, groups: int, heads_per_group: int, head_dim: int, vocab: int, tied: bool, qkv_bias: bool = False
) -> ModelShape:
    return ModelShape(
        num_layers=2,
        hidden_size=6,
        ffn_size=size * 3,
        num_heads=size * groups * heads_per_group,
        num_kv_heads=size * groups,
        head_dim=head_dim,
        vocab_size=vocab,
        max_positions=16,
        rope_theta=1e4,
        rope_scaling=None,
        norm_eps=1e-5,
        tied_embeddings=tied,
        qkv_bias=qkv_bias,
    )


shapes = st.builds(
    make_shape,
    size=st.sampled_from([1, 2, 4]),
    groups=st.integers(1, 3),
    heads_per_group=st.integers(1, 3),
    head_dim=st.sampled_from([2, 4]),
    vocab=st.integers(1, 40),
    tied=st.booleans(),
    qkv_bias=st.booleans(),
)


class RandomBiases(RandomSource):
    """Fresh biases are all 0, which would hide their order."""

    def read(self, name: str, rows: Any = None, columns: Any = None) -> torch.Tensor:
        if name.endswith(".bias"):
            return torch.arange(1.0, 1 + self.sizes[name][0])[slice(*(rows or (None,)))] * len(name)
        return super().read(name, rows, columns)


@given(shape=shapes, size=st.sampled_from([1, 2, 4]), seed=st.integers(0, 3))
def test_layers_come_back_whole(shape: ModelShape, size: int, seed: int) -> None:
    if shape.num_kv_heads % size or shape.ffn_size % size:
        return
    source = RandomBiases(shape, seed)
    wanted = [piece for piece in pieces(shape) if piece.layer == 1]
    assert {piece.key for piece in wanted} == {key for key in LAYER if key != QKV_BIAS or shape.qkv_bias}
    for piece in wanted:
        shards = [shard(piece.key, 1, source, shape, rank, size, 64) for rank in range(size)]
        if piece.key == FC1:  # each rank holds its own gate and up rows; a checkpoint has all gates, then all ups
            halves = zip(*(shard.chunk(2) for shard in shards), strict=True)
            whole = torch.cat([part for half in halves for part in half])
        elif "norm" in piece.key:
            assert all(torch.equal(shard, shards[0]) for shard in shards)
            whole = shards[0]
        else:
            whole = torch.cat(shards, dim=1 if piece.key in ROW_PARALLEL else 0)
        assert tuple(whole.shape) == layer_sizes(shape, 0)[piece.key]
        back = torch.cat([whole[start : start + count] for start, count in piece.rows])
        assert tuple(back.shape) == piece.size
        assert torch.equal(back, source.read(piece.name))


@given(shape=shapes)
def test_every_row_of_a_layer_is_taken_once(shape: ModelShape) -> None:
    for key, size in layer_sizes(shape, 0).items():
        runs = [run for piece in pieces(shape) if (piece.key, piece.layer) == (key, 0) for run in piece.rows]
        assert sorted(row for start, count in runs for row in range(start, start + count)) == list(range(size[0]))
    assert sum(piece.num_elements for piece in pieces(shape)) == shape.num_parameters


@given(shape=shapes, size=st.sampled_from([1, 2, 4]), key=st.sampled_from([EMBEDDING, OUTPUT]))
def test_vocabulary_rows_are_all_there_and_padding_is_zero(shape: ModelShape, size: int, key: str) -> None:
    padded = shape.padded_vocab(4 * size)
    whole = torch.cat([shard(key, None, RandomSource(shape, 0), shape, r, size, padded) for r in range(size)])
    name = "model.embed_tokens.weight" if shape.tied_embeddings or key == EMBEDDING else "lm_head.weight"
    assert torch.equal(whole[: shape.vocab_size], RandomSource(shape, 0).read(name))
    assert whole.shape[0] == padded
    assert not whole[shape.vocab_size :].any()


def test_queries_stand_before_their_own_key_and_value() -> None:
    """Two groups of two query heads, head size 1: q0 q1 k0 v0 q2 q3 k1 v1."""
    query, key, value = (
        torch.tensor([[0.0], [1], [2], [3]]),
        torch.tensor([[10.0], [11]]),
        torch.tensor([[20.0], [21]]),
    )
    joined = join_qkv(query, key, value, head_dim=1)
    assert joined.flatten().tolist() == [0, 1, 10, 20, 2, 3, 11, 21]
    shape = make_shape(1, 2, 2, 1, 8, False)
    rows = {piece.name.split(".")[-2]: piece.rows for piece in pieces(shape) if (piece.key, piece.layer) == (QKV, 0)}
    assert rows == {"q_proj": ((0, 2), (4, 2)), "k_proj": ((2, 1), (6, 1)), "v_proj": ((3, 1), (7, 1))}
    bias = join_qkv(*(part.flatten() for part in (query, key, value)), head_dim=1)
    assert bias.tolist() == joined.flatten().tolist()


def test_parameter_names_give_keys_and_global_layers() -> None:
    assert canonical_name("decoder.layers.1.input_layernorm.weight", 4) == (
        "self_attention.linear_qkv.layer_norm_weight",
        5,
    )
    assert canonical_name("decoder.layers.0.self_attention.linear_qkv.weight", 2) == (QKV, 2)
    assert canonical_name(OUTPUT, 2) == (OUTPUT, None)
    assert canonical_name("decoder.layers.0.self_attention.linear_qkv.bias", 3) == (QKV_BIAS, 3)
    for unknown in ("decoder.layers.0.mlp.router.weight", "decoder.norm.weight"):
        with pytest.raises(ValueError, match="no mapping"):
            canonical_name(unknown)
