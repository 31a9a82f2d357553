"""Llama forward passes over a slot cache: `prefill` for new prompts, `decode` for one token of every running slot.

Arithmetic is float64 by default: a row's result then depends on what it is batched with only in the 16th digit, so a
rerun that batches differently samples the same tokens. Keys and values are kept as float32 (decoding small models is
bound by reading them); rounding hides the 16th digit instead of spreading it.

What makes it fast at sizes where one torch call costs as much as its arithmetic: q, k, v and gate, up are one matrix
each, norm weights are folded into the matrix that follows, and rows of q and k are reordered so that rotary embedding
is one complex multiplication.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nemo_ext.serving.embedded.checkpoint import LlamaConfig
from nemo_ext.serving.embedded.rope import rotations

SPAN_BYTES = 2 << 20  # keys and values widened at once: about what stays in a core's cache


@dataclass(frozen=True)
class Layer:
    qkv: Tensor  # [(heads + 2 kv_heads) * head_dim, hidden]
    out: Tensor  # [heads * head_dim, hidden]
    gate_up: Tensor  # [2 * intermediate, hidden]
    down: Tensor  # [intermediate, hidden]


@dataclass(frozen=True)
class Span:
    """Neighbouring slots that attend together, up to the longest of them."""

    start: int
    stop: int
    length: int
    mask: Tensor  # [slots, 1, 1, length], 0 or -inf


def _layer(weights: dict[str, Tensor], index: int, config: LlamaConfig) -> Layer:
    def get(name: str) -> Tensor:
        return weights[f"model.layers.{index}.{name}.weight"]

    def pairs_adjacent(matrix: Tensor) -> Tensor:
        """Rows of each head from (first halves, second halves) to neighbouring pairs; q.k does not change."""
        halves = matrix.view(-1, 2, config.head_dim // 2, config.hidden_size)
        return halves.transpose(1, 2).reshape(matrix.shape)

    q, k = pairs_adjacent(get("self_attn.q_proj")), pairs_adjacent(get("self_attn.k_proj"))
    gate_up = torch.cat([get("mlp.gate_proj"), get("mlp.up_proj")])
    return Layer(
        qkv=torch.cat([q, k, get("self_attn.v_proj")]) * get("input_layernorm"),
        out=get("self_attn.o_proj").t().contiguous(),
        gate_up=gate_up * get("post_attention_layernorm"),
        down=get("mlp.down_proj").t().contiguous(),
    )


class Llama:
    """Weights and the cache of `num_slots` sequences of at most `context_length` tokens.

    Args:
        weights: by Hugging Face name, all of one dtype, float64 or float32: the dtype computed in.
    """

    def __init__(self, config: LlamaConfig, weights: dict[str, Tensor], num_slots: int, context_length: int) -> None:
        self.config = config
        self.embedding = weights["model.embed_tokens.weight"]
        self.dtype = self.embedding.dtype
        self.layers = [_layer(weights, i, config) for i in range(config.num_layers)]
        head = self.embedding if config.tied else weights["lm_head.weight"]
        self.head = head * weights["model.norm.weight"]
        self.context_length = context_length
        self.rotations = rotations(config.rope, config.head_dim, context_length, self.dtype)
        shape = (num_slots, 2 * config.num_kv_heads, context_length, config.head_dim)
        # numpy's zeros come from calloc: pages no sequence has reached take no memory, and none holds a stray NaN.
        self.cache = [torch.from_numpy(np.zeros(shape, dtype=np.float32)) for _ in self.layers]
        self._widened = torch.empty(0, dtype=self.dtype)

    def _norm(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (self.config.hidden_size,), None, self.config.rms_norm_eps)

    def _mlp(self, x: Tensor, layer: Layer) -> Tensor:
        gate, up = F.linear(self._norm(x), layer.gate_up).chunk(2, dim=-1)
        return torch.addmm(x, F.silu(gate).mul_(up), layer.down)

    def _qkv(self, x: Tensor, layer: Layer, turn: Tensor) -> Tensor:
        """[tokens, heads + 2 kv_heads, head_dim]; queries and keys are turned by `turn` [tokens, 1, head_dim / 2]."""
        config = self.config
        rotated = config.num_heads + config.num_kv_heads
        qkv = F.linear(self._norm(x), layer.qkv).view(len(x), rotated + config.num_kv_heads, config.head_dim)
        pairs = qkv[:, :rotated].view(len(x), rotated, config.head_dim // 2, 2)
        torch.view_as_complex(pairs).mul_(turn)
        return qkv

    def _prefill_hidden(self, ids: Tensor, slots: Tensor) -> Tensor:
        """[prompts, length, hidden] before the last norm; fills the cache of `slots`."""
        prompts, length = ids.shape
        heads = self.config.num_heads
        x = F.embedding(ids.reshape(-1), self.embedding)
        turn = self.rotations[:length].repeat(prompts, 1).unsqueeze(1)
        for layer, cache in zip(self.layers, self.cache, strict=True):
            qkv = self._qkv(x, layer, turn).view(prompts, length, -1, self.config.head_dim).transpose(1, 2)
            cache[slots, :, :length] = qkv[:, heads:].float()
            q, k, v = qkv.split([heads, self.config.num_kv_heads, self.config.num_kv_heads], dim=1)
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = torch.addmm(x, attended.transpose(1, 2).reshape(len(x), -1), layer.out)
            x = self._mlp(x, layer)
        return x.view(prompts, length, -1)

    def prefill(self, ids: Tensor, lengths: Tensor, slots: Tensor) -> Tensor:
        """Logits [prompts, vocab] after each prompt; its keys and values go to its slot.

        Args:
            ids: int64 [prompts, longest], padded on the right with any id.
            lengths: int64 [prompts].
            slots: int64 [prompts].
        """
        hidden = self._prefill_hidden(ids, slots)
        last = hidden[torch.arange(len(ids)), lengths - 1]
        return F.linear(self._norm(last), self.head)

    def all_logits(self, ids: Tensor) -> Tensor:
        """Logits [length, vocab] at every position of one prompt, int64 [length]. Overwrites slot 0."""
        return F.linear(self._norm(self._prefill_hidden(ids.unsqueeze(0), torch.tensor([0]))[0]), self.head)

    def decode(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Logits [slots, vocab] of slots 0, 1, ... given the token each holds at its position (both int64 [slots])."""
        heads = self.config.num_heads
        x = F.embedding(ids, self.embedding)
        turn = self.rotations[positions].unsqueeze(1)
        slots = torch.arange(len(ids))
        spans = self._spans(positions)
        for layer, cache in zip(self.layers, self.cache, strict=True):
            qkv = self._qkv(x, layer, turn)
            cache.transpose(1, 2)[slots, positions] = qkv[:, heads:].float()
            x = torch.addmm(x, self._attend(qkv[:, :heads], cache, spans), layer.out)
            x = self._mlp(x, layer)
        return F.linear(self._norm(x), self.head)

    def _spans(self, positions: Tensor) -> list[Span]:
        """Cut the slots so that the widened keys and values of each piece stay in cache."""
        counts = (positions + 1).tolist()
        row_bytes = 2 * self.config.num_kv_heads * self.config.head_dim * self.dtype.itemsize
        spans, start = [], 0
        while start < len(counts):
            stop, length = start + 1, counts[start]
            while stop < len(counts):
                longest = max(length, counts[stop])
                if longest * (stop + 1 - start) * row_bytes > SPAN_BYTES:
                    break
                stop, length = stop + 1, longest
            hidden = torch.arange(length) > positions[start:stop].unsqueeze(1)
            mask = torch.zeros(hidden.shape, dtype=self.dtype).masked_fill_(hidden, -torch.inf)
            spans.append(Span(start, stop, length, mask[:, None, None]))
            start = stop
        return spans

    def _attend(self, q: Tensor, cache: Tensor, spans: list[Span]) -> Tensor:
        """[slots, heads * head_dim]; the heads that share a key head stand where a sequence of queries would."""
        kv_heads, head_dim = self.config.num_kv_heads, self.config.head_dim
        q = q.reshape(len(q), kv_heads, -1, head_dim)
        pieces = []
        for span in spans:
            kv = self._widen(cache[span.start : span.stop, :, : span.length])
            k, v = kv[:, :kv_heads], kv[:, kv_heads:]
            pieces.append(F.scaled_dot_product_attention(q[span.start : span.stop], k, v, attn_mask=span.mask))
        attended = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return attended.reshape(len(q), -1)

    def _widen(self, kv: Tensor) -> Tensor:
        """`kv` in the computing dtype, in a buffer that is reused so that it stays in the core's cache."""
        if kv.dtype == self.dtype:
            return kv
        if self._widened.numel() < kv.numel():
            self._widened = torch.empty(kv.numel(), dtype=self.dtype)
        return self._widened[: kv.numel()].view(kv.shape).copy_(kv)

    def copy_slot(self, source: int, target: int, length: int) -> None:
        """Give `target` the first `length` keys and values of `source`."""
        for cache in self.cache:
            cache[target, :, :length] = cache[source, :, :length]
