"""Llama forward passes: `prefill` for new prompts, `decode` for one token of every running slot.

A sequence gets the same bits whatever it is batched with, so that a seeded completion is the same alone and under load,
in float32 too. Every operation keeps rows apart and adds up each of them in an order that does not depend on what stands
beside it: matrix products of a limited number of rows (ROWS, SPARE), attention over pages of fixed size (pages.py), and
over one prompt at a time. `Llama.batch_invariant` checks the products on the machine at hand.

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

from nemo_ext.serving.embedded.checkpoint import LlamaConfig
from nemo_ext.serving.embedded.pages import Pages
from nemo_ext.serving.embedded.rope import rotations

ROWS = (256, 128, 64, 32)
"""Of one matrix product, at most; the first that passes rows_keep_their_bits. MKL cuts long sums for more."""
SPARE = 3
"""Rows that belong to nobody, put after the others: products of one to three rows go another way through MKL, and the
last elements of an array go through scalar instead of vector code."""
NOBODY = np.zeros(SPARE, dtype=np.int64)

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Layer:
    """Matrices as [in, out]: MKL treats all products of two or more rows alike for this layout, not for [out, in]."""

    qkv: Tensor  # [hidden, (heads + 2 kv_heads) * head_dim]
    out: Tensor  # [heads * head_dim, hidden]
    gate_up: Tensor  # [hidden, 2 * intermediate]
    down: Tensor  # [intermediate, hidden]


def _layer(weights: dict[str, Tensor], index: int, config: LlamaConfig) -> Layer:
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


def rows_keep_their_bits(matrix: Tensor, limit: int) -> bool:
    """Whether a row's product with `matrix` is the same to the last bit among SPARE + 1 to `limit` rows, anywhere."""
    rows = torch.randn(limit, len(matrix), generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
    whole = rows @ matrix
    counts = sorted({SPARE + 1, SPARE + 2, 8, 17, 32, 33, limit // 2, limit - 1} & set(range(SPARE + 1, limit)))
    return torch.equal(rows.flip(0) @ matrix, whole.flip(0)) and all(
        torch.equal(rows[-count:] @ matrix, whole[-count:]) for count in counts
    )


class Llama:
    """Weights and the cache of `num_slots` sequences of at most `context_length` tokens.

    Args:
        weights: by Hugging Face name, all of one dtype, float64 or float32: the dtype computed in.
    """

    def __init__(self, config: LlamaConfig, weights: dict[str, Tensor], num_slots: int, context_length: int) -> None:
        self.config = config
        self.embedding = weights["model.embed_tokens.weight"]
        self.layers = [_layer(weights, i, config) for i in range(config.num_layers)]
        head = self.embedding if config.tied else weights["lm_head.weight"]
        self.head = (head * weights["model.norm.weight"]).t().contiguous()
        self.context_length = context_length
        self.rotations = rotations(config.rope, config.head_dim, context_length, self.embedding.dtype)
        self.pages = Pages(config, num_slots, context_length, self.embedding.dtype)
        layer = self.layers[0]  # the others have the same shapes
        matrices = (layer.qkv, layer.out, layer.gate_up, layer.down, self.head)
        self._rows = next((n for n in ROWS if all(rows_keep_their_bits(matrix, n) for matrix in matrices)), None)

    @property
    def batch_invariant(self) -> bool:
        """Whether this machine's matrix products keep the promise at the top of this file."""
        return self._rows is not None

    def _product(self, x: Tensor, matrix: Tensor) -> Tensor:
        """`x` [rows, in] times `matrix` [in, out], in parts where there are too many rows for one product."""
        parts = -(-len(x) // (self._rows or ROWS[0]))
        return x @ matrix if parts == 1 else torch.cat([part @ matrix for part in x.tensor_split(parts)])

    def _norm(self, x: Tensor) -> Tensor:
        """RMS norm without its weight, in fewer calls than torch's own."""
        squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
        return x * squares.div_(self.config.hidden_size).add_(self.config.rms_norm_eps).rsqrt_()

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
        """x [tokens + 1, hidden] and turn; the last row is nobody's."""
        padded = torch.from_numpy(np.append(ids, NOBODY))
        turn = self.rotations[torch.from_numpy(np.append(positions, NOBODY))].unsqueeze(1)
        return F.embedding(padded, self.embedding), turn

    def _logits(self, x: Tensor) -> Tensor:
        """[rows - 1, vocab] from the last hidden state with nobody's row."""
        return self._product(self._norm(x), self.head)[:-SPARE]

    def _prefill_hidden(self, prompts: list[Ints], slots: Ints) -> Tensor:
        """[tokens of all prompts + 1, hidden] before the last norm; fills the slots' pages."""
        lengths = np.array([len(prompt) for prompt in prompts])
        positions = np.concatenate([np.arange(length) for length in lengths])
        self.pages.reserve(slots, lengths)
        places = self.pages.places(np.repeat(slots, lengths), positions)
        x, turn = self._embedded(np.concatenate(prompts), positions)
        heads, kv_heads = self.config.num_heads, self.config.num_kv_heads
        for index, layer in enumerate(self.layers):
            qkv = self._qkv(x, layer, turn)
            _, k, v = qkv[:-SPARE].split([heads, kv_heads, kv_heads], dim=1)
            self.pages.write(index, places, k, v)
            attended = torch.zeros(len(x), layer.out.shape[0], dtype=x.dtype)
            for rows in np.split(np.arange(len(positions)), np.cumsum(lengths)[:-1]):  # a prompt at a time: see above
                attended[rows[0] : rows[-1] + 1] = self._attend_causally(qkv[rows[0] : rows[-1] + 1])
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
        return self._after_each(prompts, self._prefill_hidden(prompts, slots))

    def prefill_scored(self, prompts: list[Ints], slots: Ints, scored: list[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """As `prefill`, and of each prompt whose number is in `scored` the logits [length, vocab] at every position."""
        hidden = self._prefill_hidden(prompts, slots)
        starts = np.cumsum([0] + [len(prompt) for prompt in prompts])
        rows = {number: np.arange(starts[number], starts[number + 1]) for number in scored}
        every = {number: self._logits_of(hidden, each) for number, each in rows.items()}
        return self._after_each(prompts, hidden), every

    def _after_each(self, prompts: list[Ints], hidden: Tensor) -> Tensor:
        return self._logits_of(hidden, np.cumsum([len(prompt) for prompt in prompts]) - 1)

    def _logits_of(self, hidden: Tensor, rows: Ints) -> Tensor:
        """[rows, vocab] of some rows of `hidden`, whose last row is nobody's."""
        return self._logits(hidden[torch.from_numpy(np.append(rows, NOBODY + len(hidden) - 1))])

    def decode(self, ids: Ints, positions: Ints) -> Tensor:
        """Logits [slots, vocab] of slots 0, 1, ..., all that are in use, given the token each holds at its position."""
        count, heads = len(ids), self.config.num_heads
        slots = np.arange(count)
        self.pages.reserve(slots, positions + 1)
        places, reading = self.pages.places(slots, positions), self.pages.reading(positions + 1)
        x, turn = self._embedded(ids, positions)
        attended = torch.zeros(count + SPARE, self.layers[0].out.shape[0], dtype=x.dtype)
        for index, layer in enumerate(self.layers):
            qkv = self._qkv(x, layer, turn)
            q, k, v = qkv[:-SPARE].split([heads, self.config.num_kv_heads, self.config.num_kv_heads], dim=1)
            self.pages.write(index, places, k, v)
            attended[:-SPARE] = self.pages.attend(index, q, reading)
            x += self._product(attended, layer.out)
            self._add_mlp(x, layer)
        return self._logits(x)
