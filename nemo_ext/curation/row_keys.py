"""A few numbers per row, read in one pass over the files: what is needed to choose rows without holding them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemo_ext.row_map import scan_rows
from nemo_ext.rows import Row

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
    """[rows] int8: 1; 0 with another answer; -1 without an answer, or where `is_correct` is not known."""

    solved: Array
    """[rows] bool: there is a generated_solution or generation to train on."""
    lengths: list[int]
    """Rows of each batch of the scan, for `select_rows`."""

    def __len__(self) -> int:
        return len(self.problems)


def read_keys(files: Sequence[Path], workers: int | None = None) -> RowKeys:
    """14 bytes a row."""
    problems, sources, correct, solved = [], [], [], []
    names: dict[str, int] = {}
    for found in scan_rows(files, _reader, workers=workers):
        problems.append(np.frombuffer(found[0], np.uint64))
        translate = np.array([names.setdefault(name, len(names)) for name in found[1]], np.int32)
        sources.append(translate[np.frombuffer(found[2], np.int32)] if found[1] else translate)
        correct.append(np.frombuffer(found[3], np.int8))
        solved.append(np.frombuffer(found[4], bool))
    return RowKeys(
        np.concatenate([np.zeros(0, np.uint64), *problems]),
        np.concatenate([np.zeros(0, np.int32), *sources]),
        list(names),
        np.concatenate([np.zeros(0, np.int8), *correct]),
        np.concatenate([np.zeros(0, bool), *solved]),
        [len(batch) for batch in correct],
    )


def _reader() -> Any:
    return _read


def _read(rows: list[Row]) -> tuple[bytes, list[str], bytes, bytes, bytes]:
    names: dict[str, int] = {}
    digests = []
    last, digest = object(), b""
    for row in rows:
        if row["problem"] != last:  # most often it is another solution of the same one
            last = row["problem"]
            digest = _digest(str(last))
        digests.append(digest)
    sources = [names.setdefault(str(row.get("problem_source") or ""), len(names)) for row in rows]
    correct = np.array([_correct(row) for row in rows], np.int8)
    solved = np.array([has_solution(row) for row in rows], bool)
    return b"".join(digests), list(names), np.array(sources, np.int32).tobytes(), correct.tobytes(), solved.tobytes()


def _digest(problem: str) -> bytes:
    return hashlib.blake2b(problem.strip().encode("utf-8", "surrogatepass"), digest_size=8).digest()


def has_solution(row: Row) -> bool:
    solution = row.get("generated_solution", row.get("generation"))
    return isinstance(solution, str) and bool(solution.strip())


def _correct(row: Row) -> int:
    if row.get("is_correct") is None or row.get("predicted_answer", "") is None:
        return -1
    return int(row["is_correct"] is True)
