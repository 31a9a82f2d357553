"""Rows of one file from outside, whatever form it has; the only place that knows what such files look like.

    for place, row in placed_rows(Path("rows.jsonl")): ...     # ("rows.jsonl: line 3, row 2", {...})

JSON one object a line, with or without a byte-order mark, plain or zstd; one JSON array of objects; parquet.
"""

import codecs
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from nemo_ext.rows.exact_json import loads
from nemo_ext.rows.row import (
    MAX_ROW_BYTES,
    Row,
    open_lines,
    parquet_rows,
    parse_line,
    require_row_file,
    shown,
)

UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
ARRAY = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*([{\]]|$)")
MAX_ARRAY_BYTES = 1 << 30
"""An array is read as a whole, which takes some five times as much memory."""


def read_any(path: Path) -> Iterator[Row | str]:
    """The file's rows; a `str` stands for a line that could not be read, says where it is and what is wrong.

    Raises:
        ValueError: the file is missing, of another kind or form, or damaged as a whole.
    """
    folder = len(str(path)) - len(path.name)
    return (f"{place[folder:]}: {row}" if isinstance(row, str) else row for place, row in placed_rows(path))


def placed_rows(path: Path) -> Iterator[tuple[str, Row | str]]:
    """(file, line and row number, the row or what is wrong with the line) of each; raises as `read_any`."""
    require_row_file(path)
    refuse_utf_16(path)
    with readable(path):
        if path.suffix == ".parquet":
            yield from ((f"{path}: row {number}", row) for number, row in enumerate(parquet_rows(path), start=1))
        elif is_array(path):
            for number, each in enumerate(_array(path), start=1):
                yield f"{path}: row {number}", each if isinstance(each, dict) else _not_a_row(each)
        else:
            yield from _lines(path)


def _lines(path: Path) -> Iterator[tuple[str, Row | str]]:
    with open_lines(path) as handle:
        lines = (line.removeprefix(codecs.BOM_UTF8) if number == 0 else line for number, line in enumerate(handle))
        filled = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
        for row_number, (number, line) in enumerate(filled, start=1):
            row = parse_line(line) if len(line) <= MAX_ROW_BYTES else None
            yield f"{path}: line {number}, row {row_number}", _why(line) if row is None else row


def is_array(path: Path) -> bool:
    """Whether the file is one JSON array of rows, as some data sets are published, and not a row a line."""
    return path.suffix in {".json", ".jsonl"} and ARRAY.match(_head(path)) is not None


def refuse_utf_16(path: Path) -> None:
    """Raises ValueError with the command that converts it: all of its rows would be dropped as malformed."""
    if path.suffix in {".json", ".jsonl"} and _head(path).startswith(UTF_16):
        raise ValueError(
            f"{path}: UTF-16, and rows are read as UTF-8. Convert it: iconv -f UTF-16 -t UTF-8 {path.name} > rows.jsonl"
        )


def convert_array(path: Path) -> str:
    """The command that writes an array's rows one a line."""
    return f"jq -c '.[]' {path.name} > rows.jsonl"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """While a compressed file is read: raises ValueError with its name where it is cut off or damaged."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # of the disk, not of what is in the file
            raise
        raise ValueError(
            f"{path}: cut off or damaged: {str(error).rstrip('.')}. Is it whole where it came from?"
        ) from error


def _head(path: Path) -> bytes:
    with path.open("rb") as handle:
        return handle.read(64)


def _array(path: Path) -> list[Any]:
    if path.stat().st_size > MAX_ARRAY_BYTES:
        raise ValueError(
            f"{path}: one JSON array of {path.stat().st_size >> 20} MiB, and one of more than {MAX_ARRAY_BYTES >> 20} is "
            f"not read as a whole. Convert it: {convert_array(path)}"
        )
    try:
        return list(loads(path.read_bytes().removeprefix(codecs.BOM_UTF8)))
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{path}: not a JSON array: {error}. Is it whole where it came from?") from error


def _not_a_row(value: Any) -> str:
    return f"not a JSON object: it is a {type(value).__name__}"


def _why(line: bytes) -> str:
    if len(line) > MAX_ROW_BYTES:
        return f"{len(line):,} bytes, and a row may have {MAX_ROW_BYTES:,}"
    try:
        wrong = f"it is a {type(loads(line)).__name__}"
    except orjson.JSONDecodeError as error:
        wrong = str(error)
    return f"not a JSON object on a line of its own: {wrong}: {shown(line)!r}"
