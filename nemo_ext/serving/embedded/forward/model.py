"""Llama forward passes: `prefill` for new prompts, `decode` for one token of every running slot.

A sequence gets the same bits whatever it is batched with, so that a seeded completion is the same alone and under load,
in float32 too. Every operation keeps rows apart and adds up each of them in an order that does not depend on what stands
beside it: matrix products of limited and even numbers of rows (Way), attention over pages of fixed size (pages.py), and
over one prompt at a time. Whether that is so depends on the CPU's libraries, so products and then whole passes are checked
on the machine at hand when a model is loaded; where no way of batching passes, each sequence is computed by itself.

What makes it fast at sizes where one torch call costs as much as its arithmetic: q, k, v and gate, up are one matrix
each, norm weights are folded into the matrix that follows, and rows of q and k are reordered so that rotary embedding
is one complex multiplication.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nemo_ext.models.shape import ModelShape
from nemo_ext.serving.embedded.forward.pages import Pages, Reading
from nemo_ext.serving.embedded.forward.rope import rotations

SPARE = 3
"""Least number of rows that belong to nobody, put after the others: products of one to three rows go another way through
MKL, and the last elements of an array go through scalar instead of vector code."""
PROBES = (1, 2, 9, 33, 47)
"""Tokens of the prompts with which whole passes are checked."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Way:
    """How sequences are computed together."""

    rows: int
    """The most rows of one matrix product: MKL cuts long sums for more."""
    multiple: int
    """Every product's number of rows is a multiple of this: some kernels treat what remains of 4 or 8 rows otherwise."""
    alone: bool = False
    """One sequence after another, which nothing beside it can change."""


ALONE = Way(256, 4, alone=True)
WAYS = tuple(Way(rows, multiple) for rows in (256, 128, 64, 32) for multiple in (4, 8, 16))
"""Fastest first."""


@dataclass(frozen=True)
class Layer:
    """Matrices as [in, out]: MKL treats all products of two or more rows alike for this layout, not for [out, in]."""

    qkv: Tensor  # [hidden, (heads + 2 kv_heads) * head_dim]
    out: Tensor  # [heads * head_dim, hidden]
    gate_up: Tensor  # [hidden, 2 * intermediate]
    down: Tensor  # [intermediate, hidden]


def _layer(weights: dict[str, Tensor], index: int, config: ModelShape) -> Layer:
    def get(name: str) -> Tensor:
        return weights[f"model.layers.{index}.{name}.weight"]

    def pairs_adjacent(matrix: Tensor) -> Tensor:
        """Rows of each head from (first halves, second halves) to neighbouring pairs; q.k does not change."""
        halves = matrix.view(-1, 2, config.head_dim // 2, config.hidden_size)
        return halves.transpose(1, 2).reshape(matrix.shape)

    q, k = pairs_adjacent(get("self_attn.q_proj")), pairs_adjacent(get("self_attn.k_proj"))
    qkv = torch.cat([q / math.sqrt(config.head_dim), k, get("self_attn.v_proj")]) * get("input_layernorm")
    gate_up = torch.cat([get("mlp.gate_proj"), get("mlp.up_proj")]) * get("post_attention_layernorm")
    return Layer(*(m.t().contiguous() for m in (qkv, get("self_attn.o_proj"), gate_up, get("mlp.down_proj"))))


def rows_keep_their_bits(matrix: Tensor, way: Way) -> bool:
    """Whether a row's product with `matrix` is the same to the last bit among any number of rows that `way` allows, and
    anywhere among them."""
    rows = torch.randn(way.rows, len(matrix), generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
    whole = rows @ matrix
    counts = {way.multiple * factor for factor in (1, 2, 3, 4, 5, 8, 9)} | {way.rows // 2, way.rows - way.multiple}
    return torch.equal(rows.flip(0) @ matrix, whole.flip(0)) and all(
        torch.equal(rows[-count:] @ matrix, whole[-count:]) for count in sorted(counts) if 0 < count < way.rows
    )


class Llama:
    """Weights and the cache of `num_slots` sequences of at most `context_length` tokens.

    Args:
        weights: by Hugging Face name, all of one dtype, float64 or float32: the dtype computed in.
    """

    def __init__(self, config: ModelShape, weights: dict[str, Tensor], num_slots: int, context_length: int) -> None:
        self.config = config
        self.embedding = weights["model.embed_tokens.weight"]
        self.layers = [_layer(weights, i, config) for i in range(config.num_layers)]
        head = self.embedding if config.tied_embeddings else weights["lm_head.weight"]
        self.head = (head * weights["model.norm.weight"]).t().contiguous()
        self.context_length = context_length
        self.rotations = rotations(config, context_length, self.embedding.dtype)
        self.way = next((way for way in WAYS if self._keeps_promise(way)), ALONE)
        """How this machine keeps the promise at the top of this file."""
        self.pages = Pages(config, num_slots, context_length, self.embedding.dtype)

    def _keeps_promise(self, way: Way) -> bool:
        layer = self.layers[0]  # the others have the same shapes
        matrices = (layer.qkv, layer.out, layer.gate_up, layer.down, self.head)
        return all(rows_keep_their_bits(matrix, way) for matrix in matrices) and self._passes_keep_their_bits(way)

    @torch.inference_mode()
    def _passes_keep_their_bits(self, way: Way) -> bool:
        """Whether a few sequences get the same logits together and one after another, from prompt to third token."""
        prompts = [np.arange(n) % self.config.vocab_size for n in PROBES if n + 2 <= self.context_length]
        self.way = way
        together = self._probe(prompts)
        return torch.equal(together, torch.cat([self._probe([prompt]) for prompt in prompts], dim=1))

    def _probe(self, prompts: list[Ints]) -> Tensor:
        """Logits [3, prompts, vocab] after each prompt and after each of two tokens, in pages of their own."""
        slots, lengths = np.arange(len(prompts)), np.array([len(prompt) for prompt in prompts])
        self.pages = Pages(self.config, len(prompts), self.context_length, self.embedding.dtype)
        logits = [self.prefill(prompts, slots), *(self.decode(lengths % 7, lengths + step) for step in range(2))]
        return torch.stack(logits)

    def _nobody(self, count: int) -> Ints:
        """Zeros for the rows to put after `count` others."""
        return np.zeros(SPARE + -(count + SPARE) % self.way.multiple, dtype=np.int64)

    def _product(self, x: Tensor, matrix: Tensor) -> Tensor:
        """`x` [rows, in] times `matrix` [in, out], in parts where there are too many rows for one product."""
        return x @ matrix if len(x) <= self.way.rows else torch.cat([part @ matrix for part in x.split(self.way.rows)])

    def _norm(self, x: Tensor) -> Tensor:
        """RMS norm without its weight, in fewer calls than torch's own."""
        squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        return x * squares.div_(self.config.hidden_size).add_(self.config.norm_eps).rsqrt_()

    def _add_mlp(self, x: Tensor, layer: Layer) -> None:
        gate, up = self._product(self._norm(x), layer.gate_up).chunk(2, dim=-1)
        x += self._product(F.silu(gate).mul_(up), layer.down)

    def _qkv(self, x: Tensor, layer: Layer, turn: Tensor) -> Tensor:
        """[rows, heads + 2 kv_heads, head_dim]; queries and keys are turned by `turn` [rows, 1, head_dim / 2]."""
        config = self.config
        rotated = config.num_heads + config.num_kv_heads
        qkv = self._product(self._norm(x), layer.qkv).view(len(x), rotated + config.num_kv_heads, config.head_dim)
        pairs = qkv[:, :rotated].view(len(x), rotated, config.head_dim // 2, 2)
        torch.view_as_complex(pairs).mul_(turn)
        return qkv

    def _embedded(self, ids: Ints, positions: Ints) -> tuple[Tensor, Tensor]:
        """x [tokens + nobody's rows, hidden] and turn."""
        nobody = self._nobody(len(ids))
        padded = torch.from_numpy(np.append(ids, nobody))
        turn = self.rotations[torch.from_numpy(np.append(positions, nobody))].unsqueeze(1)
        return F.embedding(padded, self.embedding), turn

    def _logits(self, x: Tensor, count: int) -> Tensor:
        """[count, vocab] from the last hidden states, which nobody's rows follow."""
        return self._product(self._norm(x), self.head)[:count]

    def _prefill_hidden(self, prompts: list[Ints], slots: Ints) -> Tensor:
        """[tokens of all prompts and nobody's rows, hidden] before the last norm; fills the slots' pages."""
        lengths = np.array([len(prompt) for prompt in prompts])
        positions = np.concatenate([np.arange(length) for length in lengths])
        self.pages.reserve(slots, lengths)
        places = self.pages.places(np.repeat(slots, lengths), positions)
        x, turn = self._embedded(np.concatenate(prompts), positions)
        heads, kv_heads = self.config.num_heads, self.config.num_kv_heads
        for index, layer in enumerate(self.layers):
            qkv = self._qkv(x, layer, turn)
            _, k, v = qkv[: len(positions)].split([heads, kv_heads, kv_heads], dim=1)
            self.pages.write(index, places, k, v)
            attended = torch.zeros(len(x), layer.out.shape[0], dtype=x.dtype)
            for rows in np.split(np.arange(len(positions)), np.cumsum(lengths)[:-1]):  # a prompt at a time: see above
                # copied, because what lies unaligned in memory goes another way through the kernel
                attended[rows[0] : rows[-1] + 1] = self._attend_causally(qkv[rows[0] : rows[-1] + 1].clone())
            x += self._product(attended, layer.out)
            self._add_mlp(x, layer)
        return x

    def _attend_causally(self, qkv: Tensor) -> Tensor:
        """[length, heads * head_dim] of one prompt, every position over those up to it."""
        heads, kv_heads = self.config.num_heads, self.config.num_kv_heads
        q, k, v = qkv.transpose(0, 1).unsqueeze(0).split([heads, kv_heads, kv_heads], dim=1)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0, enable_gqa=True)
        return attended[0].transpose(0, 1).reshape(len(qkv), -1)

    def prefill(self, prompts: list[Ints], slots: Ints) -> Tensor:
        """Logits [prompts, vocab] after each prompt of token ids; its keys and values go to its slot, an empty one."""
        return self.prefill_scored(prompts, slots, [])[0]

    def prefill_scored(self, prompts: list[Ints], slots: Ints, scored: list[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """`prefill`, which also returns, for each prompt whose number is in `scored`, the logits [length, vocab] at
        every position."""
        if self.way.alone and len(prompts) > 1:
            return self._prefill_alone(prompts, slots, scored)
        hidden = self._prefill_hidden(prompts, slots)
        ends = np.cumsum([len(prompt) for prompt in prompts])
        every = {number: np.arange(ends[number] - len(prompts[number]), ends[number]) for number in scored}
        return self._logits_of(hidden, ends - 1), {
            number: self._logits_of(hidden, rows) for number, rows in every.items()
        }

    def _prefill_alone(self, prompts: list[Ints], slots: Ints, scored: list[int]) -> tuple[Tensor, dict[int, Tensor]]:
        parts = [
            self.prefill_scored([prompt], slots[number : number + 1], [0] if number in scored else [])
            for number, prompt in enumerate(prompts)
        ]
        return torch.cat([last for last, _ in parts]), {number: parts[number][1][0] for number in scored}

    def _logits_of(self, hidden: Tensor, rows: Ints) -> Tensor:
        """[rows, vocab] of some rows of `hidden`, whose last row is nobody's."""
        nobody = self._nobody(len(rows)) + len(hidden) - 1
        return self._logits(hidden[torch.from_numpy(np.append(rows, nobody))], len(rows))

    def decode(self, ids: Ints, positions: Ints) -> Tensor:
        """Logits [slots, vocab] of slots 0, 1, ..., all that are in use, given the token each holds at its position."""
        slots = np.arange(len(ids))
        self.pages.reserve(slots, positions + 1)
        if not self.way.alone:
            return self._decode(ids, positions, slots, self.pages.reading(positions + 1))
        each = (slots[slot : slot + 1] for slot in slots)
        readings = (self.pages.reading_alone(int(slot), int(positions[slot]) + 1) for slot in slots)
        parts = zip(each, readings, strict=True)
        return torch.cat([self._decode(ids[slot], positions[slot], slot, reading) for slot, reading in parts])

    def _decode(self, ids: Ints, positions: Ints, slots: Ints, reading: Reading) -> Tensor:
        """Logits [slots, vocab] of the slots that `reading` is of."""
        count, heads, kv_heads = len(ids), self.config.num_heads, self.config.num_kv_heads
        places = self.pages.places(slots, positions)
        x, turn = self._embedded(ids, positions)
        attended = torch.zeros(len(x), self.layers[0].out.shape[0], dtype=x.dtype)
        for index, layer in enumerate(self.layers):
            qkv = self._qkv(x, layer, turn)
            q, k, v = qkv[:count].split([heads, kv_heads, kv_heads], dim=1)
            self.pages.write(index, places, k, v)
            attended[:count] = self.pages.attend(index, q, reading)
            x += self._product(attended, layer.out)
            self._add_mlp(x, layer)
        return self._logits(x, count)
