"""Keys and values of the running sequences, in pages of PAGE tokens, and attention over them.

A page's scores and weighted values are products of one fixed shape, and a sequence adds up its own pages in order: what
else is running changes neither, so a sequence gets the same bits alone and in any batch. It also wastes less than half
a page per sequence, where padding to the longest wastes most when lengths differ most.

The pages in use are numbers 0 .. num_used - 1, so that one batched product covers them without a copy.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nemo_ext.models.shape import ModelShape

PAGE = 32  # tokens


@dataclass(frozen=True)
class Reading:
    """What attention of one step needs to know of the pages in use; the same for every layer."""

    num_pages: int
    pages: slice | Tensor
    """The pages: the first `num_pages`, or int64 [pages]."""
    owner: Tensor  # int64 [pages]: the slot a page belongs to
    bias: Tensor  # [pages, 1, 1, PAGE]: -inf where the page is not filled yet
    in_order: Tensor  # int64 [pages]: pages of slot 0 in order, then of slot 1, ...
    first: Tensor  # int64 [slots]: where each slot begins in `in_order`
    by_slot: Tensor  # int64 [slots, longest]: in_order as a table; num_pages where a slot has no such page


class Pages:
    """The cache of every layer with attention, by its number among these, and which slot owns which page in which order."""

    def __init__(self, config: ModelShape, num_slots: int, context_length: int, dtype: torch.dtype) -> None:
        self.kv_heads, self.head_dim = config.num_kv_heads, config.head_dim
        per_slot = -(-context_length // PAGE)
        capacity = num_slots * per_slot
        # numpy's zeros come from calloc: pages no sequence has reached take no memory, and none holds a stray NaN.
        kind = np.float64 if dtype == torch.float64 else np.float32
        key_shape = (capacity, self.kv_heads, self.head_dim, PAGE)
        value_shape = (capacity, self.kv_heads, PAGE, self.head_dim)
        num_layers = sum(layer.kv_per_token > 0 for layer in config.layers)
        self.keys = [torch.from_numpy(np.zeros(key_shape, kind)) for _ in range(num_layers)]
        self.values = [torch.from_numpy(np.zeros(value_shape, kind)) for _ in range(num_layers)]
        self.table = np.zeros((num_slots, per_slot), dtype=np.int64)
        self.counts = np.zeros(num_slots, dtype=np.int64)
        self.owner = np.zeros(capacity, dtype=np.int64)
        self.number = np.zeros(capacity, dtype=np.int64)  # the page's place in its sequence
        self.num_used = 0

    @property
    def usage(self) -> float:
        return self.num_used / len(self.owner)

    def reserve(self, slots: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        """Give each slot pages for `lengths` tokens."""
        wanted = -(-lengths // PAGE)
        for slot, count in zip(slots[wanted > self.counts[slots]], wanted[wanted > self.counts[slots]], strict=True):
            for number in range(self.counts[slot], count):
                page = self.num_used
                self.table[slot, number], self.owner[page], self.number[page] = page, slot, number
                self.num_used += 1
            self.counts[slot] = count

    def release(self, slot: int) -> None:
        """Free a slot's pages; the last pages in use move into the holes."""
        for page in sorted(self.table[slot, : self.counts[slot]].tolist(), reverse=True):
            self.num_used -= 1
            last = self.num_used
            if page == last:
                continue
            for cache in (*self.keys, *self.values):
                cache[page] = cache[last]
            self.owner[page], self.number[page] = self.owner[last], self.number[last]
            self.table[self.owner[page], self.number[page]] = page
        self.counts[slot] = 0

    def rename(self, source: int, target: int) -> None:
        """What was slot `source` is now slot `target`, which owns nothing."""
        assert self.counts[target] == 0, "a slot's pages are released before another takes its number"
        count = self.counts[source]
        self.table[target, :count] = self.table[source, :count]
        self.owner[self.table[target, :count]] = target
        self.counts[target], self.counts[source] = count, 0

    def copy(self, source: int, target: int, length: int) -> None:
        """Give `target`, which owns nothing, the first `length` tokens of `source`."""
        self.reserve(np.array([target]), np.array([length]))
        count = self.counts[target]
        theirs, ours = torch.from_numpy(self.table[source, :count]), torch.from_numpy(self.table[target, :count])
        for cache in (*self.keys, *self.values):
            cache[ours] = cache[theirs]

    def places(self, slots: NDArray[np.int64], positions: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Page and place within it of each (slot, position)."""
        pages = self.table[slots, positions // PAGE]
        return torch.from_numpy(pages), torch.from_numpy(positions % PAGE)

    def write(self, layer: int, places: tuple[Tensor, Tensor], keys: Tensor, values: Tensor) -> None:
        """Store keys and values, both [tokens, kv_heads, head_dim]."""
        page, offset = places
        self.keys[layer][page, :, :, offset] = keys
        self.values[layer][page, :, offset] = values

    def reading(self, lengths: NDArray[np.int64]) -> Reading:
        """How to read slots 0, 1, ... of `lengths` tokens each, which own all pages in use."""
        count, used = len(lengths), self.num_used
        owner, number = self.owner[:used], self.number[:used]
        filled = lengths[owner] - number * PAGE
        empty = np.arange(PAGE) >= filled[:, None]
        table = self.table[:count, : self.counts[:count].max()]
        present = np.arange(table.shape[1]) < self.counts[:count, None]
        dtype = self.keys[0].dtype
        return Reading(
            num_pages=used,
            pages=slice(used),
            owner=torch.from_numpy(owner),
            bias=torch.zeros(empty.shape, dtype=dtype).masked_fill_(torch.from_numpy(empty), -torch.inf)[
                :, None, None
            ],
            in_order=torch.from_numpy(table[present]),
            first=torch.from_numpy(np.cumsum(self.counts[:count]) - self.counts[:count]),
            by_slot=torch.from_numpy(np.where(present, table, used)),
        )

    def reading_alone(self, slot: int, length: int) -> Reading:
        """How to read one slot of `length` tokens, whatever pages others own: its queries are slot 0's."""
        count = int(self.counts[slot])
        order = torch.arange(count)
        empty = torch.arange(count * PAGE).view(count, 1, 1, PAGE) >= length
        return Reading(
            num_pages=count,
            pages=torch.from_numpy(self.table[slot, :count]),
            owner=torch.zeros(count, dtype=torch.int64),
            bias=torch.zeros(empty.shape, dtype=self.keys[0].dtype).masked_fill_(empty, -torch.inf),
            in_order=order,
            first=torch.zeros(1, dtype=torch.int64),
            by_slot=order[None],
        )

    def attend(self, layer: int, q: Tensor, reading: Reading) -> Tensor:
        """[slots, heads * head_dim]: each slot's queries [heads, head_dim], scaled already, over its own pages."""
        count, pages, dim = len(q), reading.num_pages, self.head_dim
        keys = self.keys[layer][reading.pages].view(pages * self.kv_heads, dim, PAGE)
        values = self.values[layer][reading.pages].view(pages * self.kv_heads, PAGE, dim)
        queries = q.reshape(count, -1)[reading.owner].view(pages * self.kv_heads, -1, dim)
        scores = torch.bmm(queries, keys).view(pages, self.kv_heads, -1, PAGE).add_(reading.bias)
        scores = scores.sub_(_best(scores, reading)).exp_()
        weighed = torch.bmm(scores.view(pages * self.kv_heads, -1, PAGE), values)
        total = _added(weighed.view(pages, -1), reading).view(count, -1, dim)
        return total.div_(_added(scores.sum(-1).view(pages, -1), reading)[..., None]).view(count, -1)


def _best(scores: Tensor, reading: Reading) -> Tensor:
    """[pages, kv_heads, group, 1]: the highest score of the page's sequence."""
    of_page = scores.amax(-1)
    padded = torch.cat([of_page.view(reading.num_pages, -1), torch.full((1, of_page[0].numel()), -torch.inf)])
    return padded[reading.by_slot].amax(1)[reading.owner].view(*of_page.shape, 1)


def _added(of_page: Tensor, reading: Reading) -> Tensor:
    """[slots, n]: the sum of each slot's pages, first to last."""
    return F.embedding_bag(reading.in_order, of_page, reading.first, mode="sum")
