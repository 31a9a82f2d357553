"""Exact duplicates: rows that agree on chosen columns, whatever the white space. The first in input order stays.

16 bytes a row are kept, and as many again while they are sorted: 0.7 GB for 14 million rows.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nemo_ext.rows.exact_json import dumps, loads
from nemo_ext.rows.outside.conversations import SYSTEM
from nemo_ext.rows.passes import scan_rows
from nemo_ext.rows.row import Row, written_solution

Array = np.ndarray[Any, Any]
COLUMNS = ("problem", "generated_solution")
ASKED_UNDER = (*SYSTEM, "tools")
"""Columns without which a row's problem is another one."""
KEY_BYTES = 16
_TO_SPACE = bytes(ord(" ") if chr(code).isspace() else code for code in range(128)) + bytes(range(128, 256))
_NAME_BYTES = 128  # of what is kept of an id


@dataclass(frozen=True)
class Keyed:
    """One entry per usable row, in the order of the files."""

    keys: Array
    """[rows, 2] uint64: a hash of the columns."""
    names: list[Array]
    """Per batch [rows of it] bytes: id and sample_index as JSON."""


def read_keys(files: Sequence[Path], columns: Sequence[str], workers: int | None = None) -> Keyed:
    """Raises ValueError when no row has one of the columns; of problems alone, a solution is not asked for."""
    keys, names, seen = [np.zeros((0, 2), np.uint64)], [], 0
    for found, named, present in scan_rows(files, partial(_reader, tuple(columns)), workers=workers):
        keys.append(np.frombuffer(found, np.uint64).reshape(-1, 2))
        names.append(named)
        seen |= present
    missing = [column for bit, column in enumerate(columns) if not seen >> bit & 1 and column not in COLUMNS]
    if missing and any(map(len, names)):
        raise ValueError(
            f"no row has the column {missing[0]!r}; duplicates are rows that agree on {', '.join(columns)}"
        )
    return Keyed(np.concatenate(keys), names)


def row_key(row: Row, columns: Sequence[str] = COLUMNS) -> bytes:
    """128 bits of the columns, white space collapsed. A row without `generated_solution` has that of `generation`; a problem
    is asked under the row's system turn and with its tools, where it has them."""
    texts = [collapsed(_text(row, column)) for column in columns]
    if "problem" in columns:
        texts += [collapsed(f"{key}: {_text(row, key)}") for key in ASKED_UNDER if row.get(key) and key not in columns]
    return text_key(b"\x1f".join(texts))


def text_key(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=KEY_BYTES).digest()


def collapsed(text: str) -> bytes:
    """The text with every run of white space one space, and none at its ends."""
    if not text.isascii():
        return " ".join(text.split()).encode("utf-8", "surrogatepass")
    plain = text.encode().translate(_TO_SPACE)  # a third of the time of taking the words apart
    while b"  " in plain:
        plain = plain.replace(b"  ", b" ")
    return plain.strip(b" ")


def _text(row: Row, column: str) -> str:
    value = _value(row, column)
    return value if isinstance(value, str) else "" if value is None else dumps(value).decode()


def _value(row: Row, column: str) -> Any:
    value = row.get(column)
    return written_solution(row) if value is None and column == "generated_solution" else value


def _reader(columns: tuple[str, ...]) -> Callable[[list[Row]], tuple[bytes, Array, int]]:
    def read(rows: list[Row]) -> tuple[bytes, Array, int]:
        present = sum(
            (any(_value(row, column) is not None for row in rows)) << bit for bit, column in enumerate(columns)
        )
        return b"".join(row_key(row, columns) for row in rows), np.array([_name(row) for row in rows], "S"), present

    return read


def _name(row: Row) -> bytes:
    name = [row.get("id"), row["sample_index"]] if "sample_index" in row else [row.get("id")]
    written = dumps(name)
    return written if len(written) <= _NAME_BYTES else dumps([str(row.get("id"))[: _NAME_BYTES // 8]])


def first_equal(keys: Array) -> Array:
    """[n] int64: of each of n keys [n, 2] the index of the first that equals it, itself where it is the first."""
    count = len(keys)
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal keys stay in input order
    ordered = keys[order]
    begins = np.ones(count, bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(count, np.int64)
    first[order] = order[np.flatnonzero(begins)[np.cumsum(begins) - 1]] if count else order
    return first


class Names:
    """The id of row number n."""

    def __init__(self, names: Sequence[Array]) -> None:
        self._names = names
        self._ends = np.cumsum([len(each) for each in names])

    def duplicate_of(self, row: int) -> Row:
        """What is written beside a duplicate of that row."""
        batch = int(np.searchsorted(self._ends, row, side="right"))
        before = int(self._ends[batch - 1]) if batch else 0
        name = loads(bytes(self._names[batch][row - before]))
        return dict(zip(("duplicate_of", "duplicate_of_sample"), name, strict=False))
