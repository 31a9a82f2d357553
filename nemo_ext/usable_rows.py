"""The rows of a batch of lines: a stage's own as they are, a person's brought to the pipeline's names, broken ones said."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_ext.columns import BadRow
from nemo_ext.datasets import adopt
from nemo_ext.manifest import MANIFEST
from nemo_ext.row_batches import Batch
from nemo_ext.rows import MALFORMED, MAX_ROW_BYTES, TOO_LONG, Row, parse_line, shown

UNUSABLE = "__unusable__"
BOM = codecs.BOM_UTF8  # with which some editors begin a file


@dataclass(frozen=True)
class Unusable:
    """A line that is no row, or a row that lacks what every row has."""

    row: Row
    reason: str


def is_own(path: Path) -> bool:
    """Whether a stage wrote the file: then a broken line is an error, not something to pass over."""
    return (path.parent / MANIFEST).is_file()


def own_lines(batch: Batch) -> list[bytes]:
    """The lines of a batch of a stage's own file, where none is blank."""
    found: list[bytes] = []
    for _, lines in batch.pieces():
        found += lines.split(b"\n")
        found.pop()  # after the last newline
    return found


def count_usable(batch: Batch) -> int:
    """How many rows `usable_rows` finds in it."""
    if is_own(batch.path):
        return sum(lines.count(b"\n") for _, lines in batch.pieces())
    return sum(isinstance(each, dict) for each in usable_rows(batch))


def usable_rows(batch: Batch) -> Iterator[Row | Unusable]:
    """Each line of the batch that is not blank.

    Raises:
        ValueError: a line of a stage's own file that is no row, with file and line.
    """
    own = is_own(batch.path)
    for offset, lines in batch.pieces():
        for line in lines.split(b"\n"):
            if line.strip():
                yield _own_row(batch.path, offset, line) if own else _row(batch.path, offset, line)
            offset += len(line) + 1


def _own_row(path: Path, offset: int, line: bytes) -> Row:
    row = parse_line(line)
    if row is None:
        with path.open("rb") as handle:
            number = handle.read(offset).count(b"\n") + 1
        raise ValueError(
            f"{path}:{number}: not a JSON object: {shown(line)!r}. The file was changed after it was written?"
        )
    return row


def _row(path: Path, offset: int, line: bytes) -> Row | Unusable:
    """`byte` leads to the line: tail -c +<byte + 1> <file> | head -1"""
    place: Row = {"file": path.name, "byte": offset}
    if len(line) > MAX_ROW_BYTES:
        return Unusable(place | {"raw": shown(line)}, TOO_LONG)
    row = parse_line(line if offset else line.removeprefix(BOM))
    if row is None:
        return Unusable(place | {"raw": shown(line)}, MALFORMED)
    if row.keys() == {UNUSABLE, "row"}:  # found so before the file was put in another order
        return Unusable(row["row"], row[UNUSABLE])
    try:
        return adopt(row)
    except BadRow as error:
        return Unusable(place | row, str(error))


def group_key(keys: tuple[str, ...], line: bytes) -> Any:
    """The values of `keys` in the row on this line; of a line that is no usable row, the line."""
    row = parse_line(line)
    if row is None:
        return line
    if all(key in row for key in keys):
        return tuple(row[key] for key in keys)
    try:
        return tuple(adopt(row).get(key) for key in keys)
    except BadRow:
        return line
