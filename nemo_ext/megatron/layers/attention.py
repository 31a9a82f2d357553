"""Attention and norm for layers without Transformer Engine: torch's own kernels, on packed samples, on any device."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from megatron.core import parallel_state
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig

from nemo_ext.megatron.layers.context_parallel import gather_groups, heads_to_tokens, tokens_to_heads
from nemo_ext.megatron.layers.dropout import IN_ATTENTION, kept_scores, place_of
from nemo_ext.megatron.layers.matmul import default_matmul
from nemo_ext.megatron.layers.rope import rotate, rotations

BUCKET_FILL = 0.7
"""Segments share one padded attention call while the shortest is at least this share of the longest. Lower means fewer
calls and more arithmetic on padding; of 0.01, 0.5, 0.7, 0.85 and 1, 0.7 and 0.85 were fastest at 120 tokens a sample."""


@dataclass
class Pack(PackedSeqParams):
    """The samples of a micro-batch; Megatron hands it through to every layer.

    trained: int64 [>= 1], the positions, of this rank's tokens, whose loss counts (position 0 where none does).
    token_keys: int64 [tokens of the whole pack], hidden_keys: of those that this rank's hidden states are of; for dropout
    (layers/dropout.py), in a pass that trains with it.
    """

    trained: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    hidden_keys: torch.Tensor | None = None
    token_keys: torch.Tensor | None = None


@dataclass
class PackedSegments(Pack):
    """A pack as PackedAttention uses it.

    cos, sin: [this rank's tokens, 1, head_dim], the rotations of each token's position in its own sample.
    buckets: int64 [segments, longest] token indices of the whole pack; rows are one sample each, padded at their end.
    place: int64 [tokens], where each token's result lies in the buckets laid end to end, one zero row after them.
    """

    cos: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    sin: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    buckets: list[torch.Tensor] = field(default_factory=list)
    place: torch.Tensor = field(default_factory=lambda: torch.empty(0))


def bounds(batch: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """The fields of Pack, for a whole micro-batch and this rank's part of it (context.local_part)."""
    trained = part["loss_mask"][0].nonzero().flatten()
    return {
        "qkv_format": "thd",
        "cu_seqlens_q": batch["cu_seqlens"],
        "cu_seqlens_kv": batch["cu_seqlens"],
        "max_seqlen_q": batch["max_seqlen"],
        "max_seqlen_kv": batch["max_seqlen"],
        "trained": trained if len(trained) else trained.new_zeros(1),
    }


def segments(
    batch: dict[str, Any],
    part: dict[str, Any],
    frequencies: torch.Tensor,
    dtype: torch.dtype,
    every_sample: bool = False,
) -> PackedSegments:
    """The pack of a micro-batch (nemo_ext.megatron.data.batches.microbatch), of which this rank holds `part`, on its device.

    A segment without a single trained token (the padding) is left out of attention: nothing else looks at it. With
    `every_sample`, for a head that reads samples whose tokens are not trained, the padding alone is.
    """
    edges = batch["cu_seqlens"].tolist()
    spans = list(pairwise(edges))
    if every_sample:
        spans = spans[: batch["num_samples"]]
    else:
        before = batch["loss_mask"][0].ne(0).cumsum(0).tolist()
        spans = [(start, end) for start, end in spans if before[end - 1] > (before[start - 1] if start else 0)]
    # Of an empty pack one token attends to itself: every weight must get a gradient, zero or not, or Megatron's overlapped
    # gradient reduction would wait for it.
    spans = spans or [(0, 1)]
    buckets, place = _buckets(spans, num_tokens=edges[-1])
    device = batch["tokens"].device
    cos, sin = rotations(part["position_ids"][0], frequencies)
    return PackedSegments(
        **bounds(batch, part),
        cos=cos.to(dtype),
        sin=sin.to(dtype),
        buckets=[bucket.to(device) for bucket in buckets],
        place=place.to(device),
    )


def _buckets(spans: Sequence[tuple[int, int]], num_tokens: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Group token spans of like length; see PackedSegments for what is returned."""
    by_length = sorted(spans, key=lambda span: span[0] - span[1])
    groups: list[list[tuple[int, int]]] = []
    for start, end in by_length:
        longest = groups[-1][0][1] - groups[-1][0][0] if groups else 0
        if end - start < BUCKET_FILL * longest or not groups:
            groups.append([])
        groups[-1].append((start, end))
    buckets, offset = [], 0
    place = torch.full((num_tokens,), -1, dtype=torch.int64)
    for group in groups:
        starts, ends = (torch.tensor(bound)[:, None] for bound in zip(*group, strict=True))
        within = torch.arange(int((ends - starts).max()))
        tokens = starts + within
        inside = tokens < ends
        rows = offset + torch.arange(tokens.numel()).view_as(tokens)
        place[tokens[inside]] = rows[inside]
        buckets.append(torch.where(inside, tokens, starts))
        offset += tokens.numel()
    place[place < 0] = offset
    return buckets, place


class PackedAttention(MegatronModule):
    """Causal attention inside each packed sample, by torch's scaled_dot_product_attention; rotates queries and keys.

    Samples of like length go through one call, padded at their end: a causal query never sees what comes after it, so
    no mask is needed and the fused kernels apply. Rotation happens here, from cos and sin made once per micro-batch,
    because Megatron's unfused path recomputes them in every layer. [tokens, heads, head_dim] in, the heads joined out,
    tokens and heads being this rank's.
    """

    def __init__(
        self, config: TransformerConfig, layer_number: int, softmax_scale: float | None = None, **_: Any
    ) -> None:
        super().__init__(config)
        self.scale, self.place = softmax_scale, place_of(layer_number, IN_ATTENTION)
        self.dropout = config.attention_dropout
        parallel = config.context_parallel_size > 1
        self.context_group = parallel_state.get_context_parallel_group() if parallel else None

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        packed_seq_params: PackedSegments,
        **_: Any,
    ) -> torch.Tensor:
        assert attention_mask is None, "a pack has no mask: its segments are"
        pack = packed_seq_params
        query, key = rotate(query, pack.cos, pack.sin), rotate(key, pack.cos, pack.sin)
        group = self.context_group
        if group is not None:
            key, value = (gather_groups(tensor, query.shape[1], group) for tensor in (key, value))
            query = tokens_to_heads(query, group)
        keys = pack.token_keys if self.training and self.dropout else None
        assert keys is not None or not (self.training and self.dropout), "a pass that trains knows its step"
        results = [self._attend(query, key, value, bucket, keys) for bucket in pack.buckets]
        results.append(query.new_zeros(1, *query.shape[1:]))
        joined = torch.cat(results).index_select(0, pack.place)
        if group is not None:
            joined = heads_to_tokens(joined, group)
        return joined.flatten(1)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bucket: torch.Tensor,
        keys: torch.Tensor | None,
    ) -> torch.Tensor:
        flat = bucket.reshape(-1)
        query, key, value = (
            tensor.index_select(0, flat).view(*bucket.shape, *tensor.shape[1:]).transpose(1, 2)
            for tensor in (query, key, value)
        )
        if keys is None:
            result = _CausalAttention.apply(query, key, value, self.scale)
        else:
            mask = kept_scores(keys[bucket], self.place, self._heads(query.shape[1]), self.dropout)
            result = dropped_attention(query, key, value, self.scale, mask, self.dropout)
        return result.transpose(1, 2).flatten(0, 1)

    def _heads(self, count: int) -> range:
        """Which of the model's query heads these `count` of this rank are."""
        size = self.config.context_parallel_size
        run = parallel_state.get_tensor_model_parallel_rank() * size
        run += parallel_state.get_context_parallel_rank() if size > 1 else 0
        return range(run * count, (run + 1) * count)


def dropped_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float | None,
    mask: torch.Tensor,
    probability: float,
) -> torch.Tensor:
    """Causal attention of [batch, heads, tokens, head_dim] whose weights outside `mask` [batch, heads, tokens, tokens] are 0
    and whose others are divided by 1 - probability. Keeps every weight for the backward pass."""
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(-1, dtype=torch.float32)
    return torch.where(mask, weights / (1 - probability), 0.0).to(value.dtype) @ value


class _CausalAttention(torch.autograd.Function):
    """scaled_dot_product_attention of [batch, heads, tokens, head_dim], forward and backward under default_matmul."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        query, key, value = (t.detach().requires_grad_(t.requires_grad) for t in (query, key, value))
        with default_matmul(), torch.set_grad_enabled(any(ctx.needs_input_grad)):
            grouped = query.shape[1] != key.shape[1]
            result = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=grouped)
        ctx.inputs, ctx.result = (query, key, value), result
        return result.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        with default_matmul():
            return *torch.autograd.grad(ctx.result, ctx.inputs, gradients), None


class RMSNorm(torch.nn.Module):
    """Root mean square norm over the last dimension.

    Unlike Megatron's WrappedTorchNorm it accepts sequence parallelism: its weight is marked, so that
    finalize_model_grads sums its gradient over the tensor parallel ranks, which each saw other tokens.
    """

    def __init__(self, config: TransformerConfig, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        device = None if config.use_cpu_initialization else torch.cuda.current_device()
        self.weight = torch.nn.Parameter(torch.ones(hidden_size, dtype=config.params_dtype, device=device))
        self.weight.sequence_parallel = config.sequence_parallel  # type: ignore[attr-defined]
        self.eps = eps

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(hidden, self.weight.shape, self.weight, self.eps)
