"""A few numbers per row, read in one pass over the files: what is needed to choose rows without holding them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nemo_ext.rows.passes import scan_rows
from nemo_ext.rows.row import Row, written_solution

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class RowKeys:
    """One entry per usable row, in the order of the files."""

    problems: Array
    """[rows] uint64: a hash of the problem."""
    sources: Array
    """[rows] int32: index into source_names."""
    source_names: list[str]
    correct: Array
    """[rows] int8: 1; 0 with another answer; -1 without an answer, or where `is_correct` is not known. [0] unless asked
    for."""
    solved: Array
    """[rows] bool: there is a generated_solution or generation to train on. [0] unless asked for."""
    fits: Array
    """[rows] int8: the first of the asked columns' values that the row has all of, -1: of none. [0] unless asked for."""
    lengths: list[int]
    """Rows of each batch of the scan, for `select_rows`."""

    def __len__(self) -> int:
        return len(self.problems)


def read_keys(
    files: Sequence[Path],
    workers: int | None = None,
    *,
    correct: bool = False,
    solved: bool = False,
    only: Sequence[Mapping[str, Any]] = (),
) -> RowKeys:
    """12 to 15 bytes a row. `correct` and `solved` are looked at where they are asked for: it takes a third longer.

    Args:
        only: mappings of columns to values, as [{"strategy": "masked"}].
    """
    problems, sources, answers, solutions, fits = [], [], [], [], []
    names: dict[str, int] = {}
    for found in scan_rows(files, partial(_reader, correct, solved, tuple(map(dict, only))), workers=workers):
        problems.append(np.frombuffer(found[0], np.uint64))
        translate = np.array([names.setdefault(name, len(names)) for name in found[1]], np.int32)
        sources.append(translate[np.frombuffer(found[2], np.int32)] if found[1] else translate)
        answers.append(np.frombuffer(found[3], np.int8))
        solutions.append(np.frombuffer(found[4], bool))
        fits.append(np.frombuffer(found[5], np.int8))
    return RowKeys(
        np.concatenate([np.zeros(0, np.uint64), *problems]),
        np.concatenate([np.zeros(0, np.int32), *sources]),
        list(names),
        np.concatenate([np.zeros(0, np.int8), *answers]),
        np.concatenate([np.zeros(0, bool), *solutions]),
        np.concatenate([np.zeros(0, np.int8), *fits]),
        [len(batch) for batch in problems],
    )


def _reader(correct: bool, solved: bool, only: tuple[dict[str, Any], ...]) -> Any:
    def read(rows: list[Row]) -> tuple[bytes, list[str], bytes, bytes, bytes, bytes]:
        digests = _digests([row["problem"] for row in rows])
        names: dict[str, int] = {}
        sources = [names.setdefault(str(row.get("problem_source") or ""), len(names)) for row in rows]
        answers = np.array([_correct(row) for row in rows] if correct else [], np.int8)
        solutions = np.array([published_solution(row) is not None for row in rows] if solved else [], bool)
        fits = np.array([_fits(row, only) for row in rows] if only else [], np.int8)
        number = np.array(sources, np.int32).tobytes()
        return digests, list(names), number, answers.tobytes(), solutions.tobytes(), fits.tobytes()

    return read


def _digests(problems: list[Any]) -> bytes:
    found = []
    last, digest = object(), b""
    for problem in problems:
        if problem != last:  # most often it is another solution of the same one
            last, digest = problem, _digest(str(problem))
        found.append(digest)
    return b"".join(found)


def _digest(problem: str) -> bytes:
    return hashlib.blake2b(problem.strip().encode("utf-8", "surrogatepass"), digest_size=8).digest()


def published_solution(row: Row) -> str | None:
    """The row's solution; None where it has none, or a blank one."""
    solution = written_solution(row)
    return solution if solution is not None and solution.strip() else None


def _fits(row: Row, only: Sequence[Mapping[str, Any]]) -> int:
    has = (all(row.get(column) == value for column, value in columns.items()) for columns in only)
    return next((number for number, fits in enumerate(has) if fits), -1)


def _correct(row: Row) -> int:
    if row.get("is_correct") is None or row.get("predicted_answer", "") is None:
        return -1
    return int(row["is_correct"] is True)
