"""The rows of a batch of lines: a stage's own as they are, a person's brought to the pipeline's names, broken ones said."""

import codecs
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_ext.rows.batches import Batch
from nemo_ext.rows.outside.adopt import Adopted, adopt
from nemo_ext.rows.outside.columns import BadRow, Columns
from nemo_ext.rows.row import MALFORMED, MAX_ROW_BYTES, TOO_LONG, Row, dumps, parse_line, shown
from nemo_ext.rows.row_input import is_own

USABLE, UNUSABLE = "__usable__", "__unusable__"
"""Keys of rows that are put in another order: what was found of them before, their layout or the reason to drop them."""
BOM = codecs.BOM_UTF8  # with which some editors begin a file


@dataclass(frozen=True)
class Unusable:
    """A line that is not a row, or a row that lacks what every row has."""

    row: Row
    reason: str


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


def usable_rows(batch: Batch, layouts: Counter[str] | None = None) -> Iterator[Row | Unusable]:
    """Each line of the batch that is not blank.

    Args:
        layouts: counts the layouts of rows from outside.

    Raises:
        ValueError: a line of a stage's own file that is not a row, with file and line.
    """
    if is_own(batch.path):
        yield from _own_rows(batch)
        return
    for each in _outside_rows(batch):
        if isinstance(each, Unusable):
            yield each
        else:
            if layouts is not None and each.layout:
                layouts[each.layout] += 1
            yield each.row


def movable_rows(batch: Batch) -> Iterator[tuple[Row, bytes]]:
    """(row, a line that stands for it in a file of another order) of each line that is not blank; of an unusable one {}."""
    rows: Iterator[Adopted | Unusable] = (
        (Adopted(row, "") for row in _own_rows(batch)) if is_own(batch.path) else _outside_rows(batch)
    )
    for each in rows:
        if isinstance(each, Unusable):
            yield {}, dumps({UNUSABLE: each.reason, "row": each.row})
        else:
            yield each.row, dumps({USABLE: each.layout, "row": each.row})


def moved_row(line: bytes) -> Row:
    """The row that `movable_rows` made this line of."""
    row = parse_line(line)
    return row["row"] if row is not None and USABLE in row else {}


def _own_rows(batch: Batch) -> Iterator[Row]:
    for offset, lines in batch.pieces():
        for line in lines.split(b"\n"):
            if line.strip():
                yield _own_row(batch.path, offset, line)
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


def _outside_rows(batch: Batch) -> Iterator[Adopted | Unusable]:
    for offset, lines in batch.pieces():
        for line in lines.split(b"\n"):
            if line.strip():
                yield _outside_row(batch, offset, line)
            offset += len(line) + 1


def _outside_row(batch: Batch, offset: int, line: bytes) -> Adopted | Unusable:
    """`byte` leads to the line: tail -c +<byte + 1> <file> | head -1"""
    place: Row = {"file": batch.path.name, "byte": offset}
    if len(line) > MAX_ROW_BYTES:
        return Unusable(place | {"raw": shown(line)}, TOO_LONG)
    row = parse_line(line if offset else line.removeprefix(BOM))
    if row is None:
        return Unusable(place | {"raw": shown(line)}, MALFORMED)
    if row.keys() == {UNUSABLE, "row"}:
        return Unusable(row["row"], row[UNUSABLE])
    if (moved := _moved(row)) is not None:
        return moved
    try:
        return adopt(row, batch.columns)
    except BadRow as error:
        return Unusable(place | row | ({"detail": error.detail} if error.detail else {}), str(error))


def _moved(row: Row) -> Adopted | None:
    inner = row.get("row")
    if row.keys() != {USABLE, "row"} or not isinstance(inner, dict) or "problem" not in inner:
        return None
    return Adopted(inner, str(row[USABLE]))


def group_key(keys: tuple[str, ...], line: bytes, columns: Columns | None = None) -> Any:
    """The values of `keys` in the row on this line; of a line that is not a usable row, the line."""
    row = parse_line(line)
    if row is None:
        return line
    if (moved := _moved(row)) is not None:
        row = moved.row
    if not columns and all(key in row for key in keys):
        return tuple(row[key] for key in keys)
    try:
        adopted = adopt(row, columns).row
    except BadRow:
        return line
    return tuple(adopted.get(key) for key in keys)
