"""Short signatures of problems, alike for problems that read alike: MinHash over runs of five bytes.

rensa makes them about five times as fast as datasketch (`make bench ONLY=dedup` measures both). Its own index of them keeps
an object for each problem and takes neighbours as duplicates unread; here they stay in arrays, and near_duplicates.py
reads both problems.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SHINGLE_BYTES = 5  # so that one fits into an integer
NUM_PERMUTATIONS = 128
_SEED = 42
_RECALL = 0.99
_FRACTION, _DRESSING = (
    re.compile(r"\\[dt]frac\b"),
    re.compile(r"\\(?:left|right|displaystyle)\b|\\[,;:!() \[\]]|[${}]"),
)
_PUNCTUATION = re.compile(r"[^\w\s\\+\-*/=<>^.%]|\.(?!\d)|_")
# What makes another problem of the same words: numbers, operators, LaTeX macros, and words of this kind.
_TELLING_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred "
    "thousand half third quarter twice thrice double triple more less fewer most least greater greatest smaller "
    "smallest larger largest longer longest shorter shortest older oldest younger youngest maximum minimum first "
    "second last before after increase increases increased decrease decreases decreased gains loses add subtract "
    "multiply divide sum product difference quotient remainder even odd prime positive negative real rational "
    "area perimeter volume radius diameter circumference circumscribed inscribed mean median mode range not "
    "without never left right"
)
_TELLING = re.compile(r"\d+(?:\.\d+)?|(?<![a-z])[-/](?![a-z])|[+*=<>^%]|\\?[a-z]+")
_IS_TELLING = frozenset(_TELLING_WORDS.split())
# What normalising takes away although it may make another problem; _is_mark and _is_name say whether it does. Two
# patterns are faster than one.
_MARK, _CAPITAL = re.compile(r"[|()\[\]!'\u2019]"), re.compile(r"[A-HJ-Z](?![A-Za-z])")
_SENTENCE_BEGINS = re.compile(r"(?:^|[.?!:])\s*$")


def normalised(problem: str) -> str:
    """Lower case, without punctuation and LaTeX dressing, white space collapsed; operators and macros stay."""
    text = problem.lower()
    if "\\" in text:
        text = _FRACTION.sub(r"\\frac", text)
    return " ".join(_PUNCTUATION.sub(" ", _DRESSING.sub(" ", text)).split())


def telling(text: str) -> tuple[str, ...]:
    """Those words of a normalised problem that must agree for two to be the same, in no order."""
    return tuple(sorted([each for each in _TELLING.findall(text) if each in _IS_TELLING or not each.isalpha()]))


def must_agree(problem: str, text: str) -> tuple[str, ...]:
    """Telling words, brackets and marks of a problem (and its normalised text), which must agree for two to be the same."""
    found = telling(text)
    if marks := [each[0] for each in _MARK.finditer(problem) if _is_mark(problem, each.start())]:
        brackets = "".join(mark for mark in marks if mark in "()[]")
        found = (*found, brackets, *sorted(mark for mark in marks if mark not in "()[]"))
    if names := [each[0] for each in _CAPITAL.finditer(problem) if _is_name(problem, each.start())]:
        found = (*found, *sorted(names))
    return found


def _is_mark(problem: str, at: int) -> bool:
    """10! and f'(2) have one, "Stop!" and "Sam's" have none."""
    mark, before = problem[at], problem[max(0, at - 2) : at]
    last = before[-1:]
    if mark == "|":
        return True
    if mark in "()[]":
        return last != "\\"  # \\( stands around a formula
    one_letter = last.isalpha() and not before[:-1].isalpha() and before[:-1] != "\\"
    if mark == "!":
        return one_letter or last.isdigit() or last in (")", "]", "}")
    return (one_letter or last in ("'", "\u2019")) and not problem[at + 1 : at + 2].isalpha()


def _is_name(problem: str, at: int) -> bool:
    """A is one in "how many has A", not in "A boy has"; where all letters are capitals, none can be told apart."""
    last = problem[at - 1 : at] if at else ""
    if last.isalpha() or last == "\\" or problem.isupper():
        return False
    return problem[at] != "A" or not _SENTENCE_BEGINS.search(problem, max(0, at - 3), at)


def shingles(text: bytes) -> Array:
    """Sorted distinct runs of five bytes as uint64; of a shorter text the text itself."""
    return np.unique(_shingles(text))


def _shingles(text: bytes) -> Array:
    padded = np.frombuffer(text.ljust(SHINGLE_BYTES, b"\0"), np.uint8).astype(np.uint64)
    count = len(padded) - SHINGLE_BYTES + 1
    return sum((padded[i : i + count] << np.uint64(8 * i) for i in range(SHINGLE_BYTES)), np.zeros(count, np.uint64))


def num_bands(threshold: float, num_permutations: int = NUM_PERMUTATIONS) -> tuple[int, int]:
    """(bands, rows of each): the longest bands that still find 99 of 100 pairs whose similarity is `threshold`."""
    for rows in range(num_permutations, 0, -1):
        bands = num_permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    return num_permutations, 1


def signatures(texts: Sequence[str]) -> Array:
    """[texts, NUM_PERMUTATIONS] uint64: two agree in a place with the probability of their similarity."""
    from rensa import RMinHash

    tokens = [_shingles(text.encode("utf-8", "surrogatepass")) for text in texts]
    ends = np.cumsum([0, *map(len, tokens)]).astype(np.uint64)
    mixed = _mixed(np.concatenate([np.zeros(0, np.uint64), *tokens]))
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(mixed, ends, NUM_PERMUTATIONS, _SEED)
    return np.array(matrix.to_rows(), np.uint64).reshape(len(texts), NUM_PERMUTATIONS)


def band_hashes(problems: Sequence[str], threshold: float) -> Array:
    """[problems, bands] uint64: two problems that share one may be near duplicates.

    What must agree is part of each, so that the many problems that differ in a number alone never meet.
    """
    bands, rows = num_bands(threshold)
    texts = [normalised(problem) for problem in problems]
    digests = signatures(texts)[:, : bands * rows].reshape(len(texts), bands, rows)
    agreed = np.array([_hash("\x1f".join(must_agree(*each))) for each in zip(problems, texts, strict=True)], np.uint64)
    with np.errstate(over="ignore"):
        hashes = _mixed(agreed[:, None] + np.arange(bands, dtype=np.uint64))
    for row in range(rows):
        hashes = _mixed(hashes ^ digests[:, :, row])
    return hashes


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mixed(values: Array) -> Array:
    """splitmix64: every bit of the result depends on every bit of the value."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
