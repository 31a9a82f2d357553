"""Bucketed attention against the plain definition."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.transformer.transformer_config import TransformerConfig

from nemo_ext.megatron.layers.attention import PackedAttention, PackedSegments, RMSNorm, segments

HEADS, GROUPS, SIZE = 4, 2, 8


def batch(lengths: list[int], padding: int) -> dict[str, Any]:
    bounds = torch.tensor([0, *lengths, *([padding] if padding else [])]).cumsum(0)
    total = int(bounds[-1])
    mask = torch.zeros(1, total)
    mask[0, : total - padding] = 1
    positions = torch.cat([torch.arange(n) for n in bounds.diff().tolist()])[None]
    return {
        "tokens": torch.zeros(1, total, dtype=torch.int64),
        "position_ids": positions,
        "loss_mask": mask,
        "cu_seqlens": bounds.int(),
        "max_seqlen": int(bounds.diff().max()),
    }


def plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """softmax(q k / sqrt d) v with an explicit causal mask, one sample at a time."""
    outputs, start = [], 0
    for length in lengths:
        q, k, v = (x[start : start + length].double() for x in (query, key, value))
        k, v = (x.repeat_interleave(HEADS // GROUPS, dim=1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(SIZE)
        scores.masked_fill_(torch.ones(length, length).triu(1).bool(), -math.inf)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1))
        start += length
    return torch.cat(outputs).float()


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8), padding=st.integers(0, 9))
def test_each_sample_attends_to_itself(lengths: list[int], padding: int) -> None:
    generator = torch.Generator().manual_seed(0)
    total = sum(lengths) + padding
    query = torch.randn(total, HEADS, SIZE, generator=generator)
    key, value = (torch.randn(total, GROUPS, SIZE, generator=generator) for _ in range(2))
    pack = segments(*[batch(lengths, padding)] * 2, torch.zeros(SIZE // 2), torch.float32)  # frequency 0: no rotation
    output = attention()(query, key, value, None, packed_seq_params=pack)
    torch.testing.assert_close(output[: sum(lengths)], plain(query, key, value, lengths), rtol=1e-4, atol=1e-5)
    assert not output[sum(lengths) :].any(), "padding is left out"


def attention() -> PackedAttention:
    config = TransformerConfig(
        num_layers=1, hidden_size=HEADS * SIZE, num_attention_heads=HEADS, attention_dropout=0.0
    )
    return PackedAttention(config, layer_number=1)


def test_gradients_stay_inside_the_sample() -> None:
    query, key, value = (torch.randn(12, n, SIZE, requires_grad=True) for n in (HEADS, GROUPS, GROUPS))
    pack = segments(*[batch([5, 4], 3)] * 2, torch.ones(SIZE // 2), torch.float32)
    attention()(query, key, value, None, packed_seq_params=pack)[5:9].sum().backward()
    for tensor in (query, key, value):
        assert tensor.grad is not None
        touched = tensor.grad.abs().sum((1, 2)) > 0
        assert not touched[:5].any()
        assert not touched[9:].any()
    assert value.grad is not None
    assert value.grad[5:9].abs().min() > 0


def test_like_lengths_share_a_call() -> None:
    pack = segments(*[batch([10, 100, 9, 95, 10], 0)] * 2, torch.zeros(SIZE // 2), torch.float32)
    assert isinstance(pack, PackedSegments)
    assert [tuple(bucket.shape) for bucket in pack.buckets] == [(2, 100), (3, 10)]


@pytest.mark.parametrize("parallel", [False, True])
def test_norm_marks_its_weight_for_sequence_parallelism(parallel: bool) -> None:
    config = TransformerConfig(num_layers=1, hidden_size=8, num_attention_heads=2, use_cpu_initialization=True)
    config.sequence_parallel = parallel
    norm = RMSNorm(config, 8, eps=1e-5)
    assert norm.weight.sequence_parallel is parallel
    hidden = torch.randn(3, 8)
    expected = hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-5)
    torch.testing.assert_close(norm(hidden), expected)
