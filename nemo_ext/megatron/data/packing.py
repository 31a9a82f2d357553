"""Best-fit-decreasing packing over a histogram of lengths: which samples share a micro-batch of `capacity` tokens.

Longest sample first, each into the open pack with the least room that still holds it; of packs with equal room, into
the one that came to it last. Samples of one length are placed together, and packs of one room lie in runs of
consecutive numbers, so the work grows with the number of distinct lengths and runs rather than of samples; a bitset
over the rooms finds the tightest fit in O(capacity / 64).
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

Placement = tuple[range, int, int]
"""(packs, each, count): the next `count` samples go into `packs` in turn, `each` of them into one before the next."""


def assign_packs(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """The pack of every sample, int32 [n], for integer `lengths` [n] in tokens; packs are numbered from 0.

    Deterministic: equal lengths keep their order, so only the multiset of lengths decides how packs are filled.

    Raises:
        ValueError: a sample longer than `capacity`.
    """
    order = _longest_first(lengths, capacity)
    packs = np.empty(len(lengths), np.int32)
    packs[order] = _assign_sorted(lengths, capacity)
    return packs


def count_packs(lengths: np.ndarray, capacity: int) -> int:
    """How many packs `assign_packs` makes, without looking at single samples.

    Raises:
        ValueError: a sample longer than `capacity`.
    """
    _check(lengths, capacity)
    return max((max(packs[0], packs[-1]) + 1 for packs, _, _ in _placements(lengths, capacity)), default=0)


def best_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Packs of indices into `lengths` (tokens), the longest sample of each first; see assign_packs.

    Raises:
        ValueError: a sample longer than `capacity`.
    """
    sizes = np.asarray(lengths, np.int64)
    order = _longest_first(sizes, capacity)
    packs = _assign_sorted(sizes, capacity)
    members = order[np.argsort(packs, kind="stable")].tolist()
    ends = np.cumsum(np.bincount(packs)).tolist() if members else []
    return [members[start:end] for start, end in pairwise([0, *ends])]


def efficiency(lengths: Sequence[int], packs: Sequence[Sequence[int]], capacity: int) -> float:
    """Share of the packs' tokens that belong to samples, 0 to 1."""
    return sum(lengths) / (len(packs) * capacity) if packs else 0.0


def _check(lengths: np.ndarray, capacity: int) -> None:
    if not len(lengths):
        return
    longest = int(lengths.argmax())
    if lengths[longest] > capacity:
        raise ValueError(f"sample {longest} has {lengths[longest]} tokens, more than the pack length {capacity}")
    assert lengths.min() > 0, "every sample has a token"


def _longest_first(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Indices int64 [n] by falling length; of 16-bit keys numpy's stable sort is a radix sort."""
    _check(lengths, capacity)
    key = np.uint16 if capacity < 1 << 16 else np.int64
    return np.argsort((capacity - lengths).astype(key), kind="stable")


def _assign_sorted(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Packs int32 [n] of the samples by falling length."""
    packs_of = np.empty(len(lengths), np.int32)
    at = 0
    for packs, each, count in _placements(lengths, capacity):
        if len(packs) == 1:  # an array of one costs ten times as much
            packs_of[at : at + count] = packs[0]
        else:
            packs_of[at : at + count] = np.arange(packs.start, packs.stop, packs.step).repeat(each)[:count]
        at += count
    return packs_of


def _placements(lengths: np.ndarray, capacity: int) -> Iterator[Placement]:
    """Where the samples go, by falling length.

    A pack of room r takes r // length samples of the length at hand one after another: after the first of them it is
    the tightest of all.
    """
    open_packs = _OpenPacks(capacity)
    counts = np.bincount(lengths) if len(lengths) else np.zeros(1, np.int64)
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            room = open_packs.tightest(length)
            each = room // length
            packs = open_packs.take(room, -(-left // each))
            count = min(left, each * len(packs))
            full, partly = divmod(count, each)
            open_packs.put(packs[:full], room - each * length)
            open_packs.put(packs[full:], room - partly * length)
            left -= count
            yield packs, each, count


class _OpenPacks:
    """Packs by the room they have left, in runs of consecutive numbers, the newest run last."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.opened = 0
        self._runs: list[list[range]] = [[] for _ in range(capacity + 1)]
        self._rooms = 0  # bit r is set when _runs[r] is not empty

    def tightest(self, length: int) -> int:
        """The least room that holds `length`; `capacity`, that of a pack yet to be opened, when none does."""
        fitting = self._rooms >> length
        return length + (fitting & -fitting).bit_length() - 1 if fitting else self.capacity

    def take(self, room: int, wanted: int) -> range:
        """At least one and at most `wanted` packs of that room, the newest first."""
        runs = self._runs[room]
        if not runs:
            self.opened += wanted
            return range(self.opened - wanted, self.opened)
        run = runs.pop()
        if wanted < len(run):
            runs.append(run[:-wanted])
        if not runs:
            self._rooms ^= 1 << room
        return run[: -wanted - 1 : -1]

    def put(self, packs: range, room: int) -> None:
        if packs:
            self._runs[room].append(packs)
            self._rooms |= 1 << room
