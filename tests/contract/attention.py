"""Fused attention on packed samples: which calls the kernel takes, and what it would compute."""

import enum
from collections import Counter
from itertools import pairwise
from typing import Any

import torch

from tests.contract.kernels import DType

NVTE_Fused_Attn_Backend = enum.IntEnum(  # type: ignore[misc]
    "NVTE_Fused_Attn_Backend",
    {"NVTE_No_Backend": -1, "NVTE_F16_max512_seqlen": 0, "NVTE_F16_arbitrary_seqlen": 1, "NVTE_FP8": 2},
)
BACKWARD: Counter[bool] = Counter()
"""Calls of the backward kernel, by whether it was asked to be deterministic."""


def get_fused_attn_backend(is_training: bool, q_type: int, *others: Any) -> Any:
    """The kernel for 16 bit; there is none for fp32, where Transformer Engine's own unfused attention remains."""
    if DType(q_type) in (DType.kBFloat16, DType.kFloat16):
        return NVTE_Fused_Attn_Backend.NVTE_F16_arbitrary_seqlen
    return NVTE_Fused_Attn_Backend.NVTE_No_Backend


def _attended(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_seqlens: torch.Tensor, scale: float
) -> torch.Tensor:
    """Causal within each sample; [tokens, heads, channels]."""
    edges, parts = cu_seqlens.tolist(), []
    assert edges[-1] == q.shape[0], "the kernel would leave the tokens after the last sample unset"
    for start, end in pairwise(edges):
        each = [part[start:end].float().transpose(0, 1) for part in (q, k, v)]
        query, key, value = (part.repeat_interleave(q.shape[1] // part.shape[0], 0) for part in each)
        later = torch.ones(end - start, end - start, dtype=torch.bool).triu(1)
        scores = (query @ key.transpose(1, 2) * scale).masked_fill(later, float("-inf"))
        parts.append((scores.softmax(-1) @ value).transpose(0, 1))
    return torch.cat(parts).to(q.dtype)


def fused_attn_fwd(
    longest_q: int,
    longest_kv: int,
    is_training: bool,
    scale: float,
    dropout: float,
    fast_zero_fill: bool,
    layout: str,
    bias: str,
    mask: str,
    softmax: str,
    window: tuple[int, int],
    bottom_right: bool,
    cu_q: torch.Tensor,
    cu_kv: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    fake_dtype: torch.dtype,
    padded_q: torch.Tensor | None,
    *others: Any,
) -> list[torch.Tensor]:
    assert layout.endswith("THD_THD_THD") and mask.endswith("PADDING_CAUSAL_MASK"), (layout, mask)
    assert tuple(window) == (-1, 0) and dropout == 0 and bias.endswith("NO_BIAS"), (window, dropout, bias)
    assert type(longest_q) is int and cu_q.dtype == torch.int32 and torch.equal(cu_q, cu_kv)
    assert int(cu_q.diff().max()) <= longest_q, "max_seqlen is smaller than a sample"
    assert padded_q is None or torch.equal(padded_q, cu_q), "padding between samples"
    assert all(part.dim() == 3 and part.stride(-1) == 1 for part in (q, k, v))
    return [_attended(q, k, v, cu_q, scale), torch.zeros(1), torch.zeros(2, dtype=torch.int64)]


def fused_attn_bwd(
    longest_q: int,
    longest_kv: int,
    scale: float,
    dropout: float,
    fast_zero_fill: bool,
    layout: str,
    bias: str,
    mask: str,
    softmax: str,
    window: tuple[int, int],
    bottom_right: bool,
    deterministic: bool,
    cu_q: torch.Tensor,
    cu_kv: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    grad: torch.Tensor,
    *others: Any,
) -> list[torch.Tensor | None]:
    BACKWARD[deterministic] += 1
    with torch.enable_grad():
        leaves = [part.detach().requires_grad_() for part in (q, k, v)]
        attended = _attended(*leaves, cu_q, scale)
        return [*torch.autograd.grad(attended, leaves, grad.reshape(attended.shape)), None]
