"""Problems that say the same in nearly the same words: found by MinHash-LSH, confirmed by the Jaccard similarity itself.

    found = near_duplicates(files, threshold=0.8)

A problem is a near duplicate when an earlier one that stays has as much of its runs of five bytes in common, and the same
numbers, operators, brackets and telling words: "Ava has 12 pens" and "Ava has 13 pens" are two problems. Rows of one
problem, its samples, stay or go together. Takes about 200 bytes for each distinct problem, and the texts of those that look
alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from nemo_ext.curation.duplicates.exact import collapsed, first_equal, text_key
from nemo_ext.curation.duplicates.problem_sketch import band_hashes, must_agree, normalised, num_bands, shingles
from nemo_ext.rows.passes import scan_rows
from nemo_ext.rows.row import Row

Array = np.ndarray[Any, Any]
_NEIGHBOURS = 4  # of a problem in a band that it is compared with, beside the first
_COMPACT_EVERY = 1_000_000  # problems, after which those that came more than once are kept once
_SETS_KEPT = 20_000


@dataclass(frozen=True)
class Near:
    """What near_duplicates found."""

    first_row: Array
    """[rows] int64: of a near duplicate the first row of the problem that stays, else -1."""
    similarity: dict[int, float]
    """First row of a problem that goes -> its similarity to the one that stays, in [threshold, 1]."""
    problem_row: Array
    """[rows] int64: the first row with the same problem."""
    compared: int
    """Pairs of problems that were read."""


def near_duplicates(files: Sequence[Path], threshold: float, workers: int | None = None) -> Near:
    """Three passes over the files: problems, their signatures, and the texts of those that may be alike."""
    problem_row, first_rows, bands = _read_sketches(files, threshold, workers)
    pairs = candidate_pairs(bands)
    wanted = np.zeros(len(problem_row), bool)
    wanted[first_rows[np.unique(pairs)]] = True
    texts = _read_texts(files, wanted, workers)
    numbered = {int(place): texts[int(first_rows[place])] for place in np.unique(pairs)}
    kept_of, similarity = confirm(pairs, numbered, threshold)
    stays = np.full(len(problem_row), -1, np.int64)
    for place, kept in kept_of.items():
        stays[first_rows[place]] = first_rows[kept]
    named = {int(first_rows[place]): value for place, value in similarity.items()}
    return Near(stays[problem_row], named, problem_row, len(pairs))


def _read_sketches(files: Sequence[Path], threshold: float, workers: int | None) -> tuple[Array, Array, Array]:
    """[rows] the first row of each one's problem, [problems] the first row of each, [problems, bands] its signature."""
    row_keys: list[Array] = []
    kept = _Distinct(num_bands(threshold)[0])
    row = 0
    for keys, starts, bands in scan_rows(files, partial(_sketcher, threshold), workers=workers):
        row_keys.append(keys)
        kept.add(keys[starts], row + np.flatnonzero(starts), bands)
        row += len(keys)
    first_rows, signatures = kept.finish()
    return first_equal(np.concatenate([np.zeros((0, 2), np.uint64), *row_keys])), first_rows, signatures


class _Distinct:
    """Signatures of problems, each once, in the order in which they were first seen."""

    def __init__(self, num_bands: int) -> None:
        self._keys = [np.zeros((0, 2), np.uint64)]
        self._rows = [np.zeros(0, np.int64)]
        self._bands = [np.zeros((0, num_bands), np.uint64)]
        self._added = 0

    def add(self, keys: Array, rows: Array, bands: Array) -> None:
        self._keys.append(keys)
        self._rows.append(rows)
        self._bands.append(bands)
        self._added += len(keys)
        if self._added > max(_COMPACT_EVERY, len(self._rows[0])):
            self._compact()

    def finish(self) -> tuple[Array, Array]:
        self._compact()
        return self._rows[0], self._bands[0]

    def _compact(self) -> None:
        keys = np.concatenate(self._keys)
        chosen = first_equal(keys) == np.arange(len(keys))
        self._keys = [keys[chosen]]
        self._rows = [np.concatenate(self._rows)[chosen]]
        self._bands = [np.concatenate(self._bands)[chosen]]
        self._added = 0


def _sketcher(threshold: float) -> Callable[[list[Row]], tuple[Array, Array, Array]]:
    def sketch(rows: list[Row]) -> tuple[Array, Array, Array]:
        problems = [_problem(row) for row in rows]
        keys = np.frombuffer(b"".join(text_key(collapsed(text)) for text in problems), np.uint64).reshape(-1, 2)
        starts = np.ones(len(rows), bool)  # of a run of samples of one problem
        starts[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        return keys, starts, band_hashes([problems[i] for i in np.flatnonzero(starts)], threshold)

    return sketch


def candidate_pairs(bands: Array) -> Array:
    """[pairs, 2] (earlier, later), sorted by the later: problems that share a band. A few a problem."""
    found = [np.zeros(0, np.uint64)]
    for band in bands.T:
        order = np.argsort(band, kind="stable").astype(np.uint64)
        values = band[order]
        begins = np.ones(len(order), bool)
        begins[1:] = values[1:] != values[:-1]
        first = np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))
        later = np.flatnonzero(~begins)
        for back in range(1, _NEIGHBOURS + 1):
            near = later[later - first[later] >= back]
            found.append(order[near] << np.uint64(32) | order[near - back])
        found.append(order[later] << np.uint64(32) | order[first[later]])
        found = [np.unique(np.concatenate(found))]
    packed = found[0]
    return np.stack([packed & np.uint64(0xFFFFFFFF), packed >> np.uint64(32)], axis=1).astype(np.int64)


def _read_texts(files: Sequence[Path], wanted: Array, workers: int | None) -> dict[int, str]:
    """Row -> its problem."""
    texts: dict[int, str] = {}
    row = 0
    for problems in scan_rows(files, _problems, workers=workers if wanted.any() else 1):
        for place in np.flatnonzero(wanted[row : row + len(problems)]):
            texts[row + int(place)] = problems[place]
        row += len(problems)
    return texts


def _problems() -> Callable[[list[Row]], list[str]]:
    return lambda rows: [_problem(row) for row in rows]


def _problem(row: Row) -> str:
    return str(row.get("problem") or "")


def confirm(pairs: Array, texts: Mapping[int, str], threshold: float) -> tuple[dict[int, int], dict[int, float]]:
    """Problem that goes -> the earlier one that stays, and -> how alike the two are.

    In order: one goes when it is as near as `threshold` to one before it that stays. So nothing goes for its likeness to
    something that is not there any more.
    """

    @lru_cache(maxsize=_SETS_KEPT)
    def read(place: int) -> tuple[Array, tuple[str, ...]]:
        text = normalised(texts[place])
        return shingles(text.encode("utf-8", "surrogatepass")), must_agree(texts[place], text)

    def similarity(one: int, other: int) -> float:
        (first, telling_first), (second, telling_second) = read(one), read(other)
        if telling_first != telling_second:
            return 0.0
        common = len(np.intersect1d(first, second, assume_unique=True))
        return common / (len(first) + len(second) - common)

    kept_of: dict[int, int] = {}
    alike: dict[int, float] = {}
    for earlier, later in pairs.tolist():
        stays = kept_of.get(earlier, earlier)
        if later in kept_of:
            continue
        value = similarity(stays, later)
        if value >= threshold:
            kept_of[later], alike[later] = stays, round(value, 4)
    return kept_of, alike
