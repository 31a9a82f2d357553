r"""Benchmark problems that share a run of n words with a text, or are the same text but for case, spaces and punctuation.

    words(r"Let $x$ and $y$ be REAL numbers.")      -> ["let", "x", "and", "y", "be", "real", "numbers"]
    exact_form(r"Find  $2+3$.")                     -> "find 2 + 3"

A word is what stands between spaces, in lower case, without any character but letters and digits: the usual rule of
n-gram decontamination (NuminaMath: n = 10; Skywork-Math: n = 30). A text of fewer than n words has no n-gram and is never
found this way, only as an exact match.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

Array = np.ndarray
NOTHING = -1
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no id is lost in the 64-bit product

_drop = re.compile(r"[^\w\s]|_").sub
_pieces = re.compile(r"\d+(?:\.\d+)?|[^\W\d_]+|[^\s$.,;?\"]").findall


def words(text: str) -> list[str]:
    return _drop("", text.casefold()).split()


def exact_form(text: str) -> str:
    """Equal for texts that differ in nothing but case, spaces, dollar signs and sentence punctuation; operators count."""
    return " ".join(_pieces(text.casefold()))


@dataclass(frozen=True)
class NgramHit:
    """A run of `n` words that a text and text `index` of the corpus have in common."""

    index: int
    n: int
    share: float
    """The share of the corpus text's n-grams that the text has: 1.0 says that it holds all of it."""
    words: str
    """The first such run."""


class NgramIndex:
    """Which texts of a corpus share n words in a row with another text, for each n of `lengths`."""

    def __init__(self, corpus: Sequence[str], lengths: Sequence[int]) -> None:
        self.lengths = tuple(sorted(set(lengths), reverse=True))
        self._ids: dict[str, int] = {}
        number = self._ids.setdefault
        self._split = [words(text) for text in corpus]
        ids = [[number(word, len(self._ids)) for word in each] for each in self._split]
        self._tables = {n: _Table(*_runs(ids, n)) for n in self.lengths}

    def too_short(self, n: int) -> list[bool]:
        """[corpus] whether a text has no n-gram."""
        return [len(each) < n for each in self._split]

    def find(self, texts: Sequence[str]) -> list[list[NgramHit]]:
        """Each text's hits: the greatest n first, then the greatest share, then by index."""
        get = self._ids.get
        split = [words(text) for text in texts]
        ids = [[get(word, NOTHING) for word in each] for each in split]
        found: list[list[NgramHit]] = [[] for _ in texts]
        for n in self.lengths:
            for text, index, share, place, other in self._tables[n].shared(*_runs(ids, n)):
                run = split[text][place : place + n]
                if self._split[index][other : other + n] == run:  # and not merely the same hash
                    found[text].append(NgramHit(index, n, share, " ".join(run)))
        for hits in found:
            hits.sort(key=lambda hit: (-hit.n, -hit.share, hit.index))
        return found


class _Table:
    """The n-grams of a corpus, sorted by hash; each once per text."""

    def __init__(self, hashes: Array, of_text: Array, places: Array) -> None:
        order = np.lexsort((places, of_text, hashes))
        hashes, of_text, places = hashes[order], of_text[order], places[order]
        new = _differ(hashes, of_text)
        self._hashes, self._of_text, self._places = hashes[new], of_text[new], places[new]
        self._sizes = np.bincount(self._of_text) if len(self._of_text) else np.zeros(0, dtype=np.int64)

    def shared(self, hashes: Array, of_text: Array, places: Array) -> Iterator[tuple[int, int, float, int, int]]:
        """(text, corpus text, share, place, place in the corpus text) of each pair with n-grams in common; the places
        are of the first one."""
        first, last = (np.searchsorted(self._hashes, hashes, side=side) for side in ("left", "right"))
        counts = last - first
        runs = np.repeat(np.arange(len(hashes)), counts)
        entries = np.arange(len(runs)) - np.repeat(np.cumsum(counts) - counts, counts) + first[runs]
        order = np.lexsort((places[runs], entries, self._of_text[entries], of_text[runs]))
        runs, entries = runs[order], entries[order]
        once = _differ(of_text[runs], entries)  # an n-gram that the text has twice counts once
        runs, entries = runs[once], entries[once]
        texts, indices = of_text[runs], self._of_text[entries]
        starts = np.flatnonzero(_differ(texts, indices))
        for start, end in pairwise([*starts, len(runs)]):
            best = start + int(np.argmin(places[runs[start:end]]))
            share = (end - start) / self._sizes[indices[start]]
            found = (texts[start], indices[start], share, places[runs[best]], self._places[entries[best]])
            yield int(found[0]), int(found[1]), float(found[2]), int(found[3]), int(found[4])


def _differ(*columns: Array) -> Array:
    """[rows] whether a row is unlike the one before it."""
    new = np.ones(len(columns[0]), dtype=bool)
    new[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return new


def _runs(ids: list[list[int]], n: int) -> tuple[Array, Array, Array]:
    """(hash, text, place of the first word) of every run of n known words."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    flat = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum()))
    size = max(0, len(flat) - n + 1)
    if not size:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    of_text = np.repeat(np.arange(len(ids)), lengths)
    unknown = np.concatenate([[0], np.cumsum(flat == NOTHING)])
    whole = (of_text[:size] == of_text[n - 1 :]) & (unknown[n:] == unknown[:size])
    starts = np.flatnonzero(whole)
    values = flat.astype(np.uint64) + np.uint64(1)
    hashes = np.zeros(len(starts), dtype=np.uint64)
    for offset in range(n):
        hashes = (hashes ^ (hashes >> np.uint64(29))) * _FACTOR + values[starts + offset]
    begins = np.cumsum(lengths) - lengths
    return hashes, of_text[starts], starts - begins[of_text[starts]]
