"""Files of rows cut into parts, and parts into batches of whole lines, the same way every time.

Parts are what a killed stage need not do again, batches what a worker process gets. Where they are cut depends on the
files alone, so neither the number of workers nor a restart changes what a stage writes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import IO, Any

from nemo_ext.rows.exact_json import dumps
from nemo_ext.rows.outside.columns import Columns
from nemo_ext.rows.outside.read import convert_array, is_array, readable, refuse_utf_16
from nemo_ext.rows.row import MAX_ROW_BYTES, open_lines, parquet_rows
from nemo_ext.rows.row_input import columns_of

PART_BYTES = 256 << 20
BATCH_BYTES = 1 << 20
PARQUET_ROWS = 512  # of one batch

Key = Callable[..., Any]
"""A line's group, key(line), or key(line, columns=...) of files whose columns have other names; lines next to each other
with the same group stay in one batch."""


@dataclass(frozen=True)
class Part:
    """The lines of a file that start in [start, end) bytes; a file that cannot be entered in the middle is one part."""

    path: Path
    start: int
    end: int
    columns: Columns = field(default_factory=dict)
    """What a column is here -> its name in the file."""

    def key(self, key: Key | None) -> Key | None:
        """The group of one of its lines."""
        return partial(key, columns=self.columns) if key is not None and self.columns else key

    @property
    def is_range(self) -> bool:
        return self.path.suffix not in {".zst", ".parquet"}


@dataclass(frozen=True)
class Batch:
    """Some of a part's lines: a range of the file, which is read where it is worked on, or the lines themselves."""

    part: int
    path: Path
    start: int
    """Where they begin, in bytes, as if the file were uncompressed JSONL."""
    end: int
    lines: bytes | None = None
    columns: Columns = field(default_factory=dict)
    """The `columns=` of the rows' part."""

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """(where they begin, whole newline-terminated lines). A line beyond MAX_ROW_BYTES is cut to show its length."""
        if self.lines is None:
            return _chunks(Part(self.path, self.start, self.end))
        return iter([(self.start, self.lines)])


def parts(files: Sequence[Path], part_bytes: int = PART_BYTES, key: Key | None = None) -> list[Part]:
    """Every file in order, cut at the first line after each multiple of `part_bytes` that begins another group.

    Raises:
        ValueError: a file holds one JSON array, or UTF-16.
    """
    found: list[Part] = []
    for path in files:
        _refuse_other_forms(path)
        whole = Part(path, 0, path.stat().st_size, columns_of(files, path))
        edges = list(_edges(whole, part_bytes, whole.key(key))) if whole.is_range else [0, whole.end]
        found += [replace(whole, start=start, end=end) for start, end in pairwise(edges)]
    return found


def _refuse_other_forms(path: Path) -> None:
    """All rows on one line, each over several, or in UTF-16: no place to cut such a file at."""
    if is_array(path):
        raise ValueError(
            f"{path}: one JSON array, and rows are read one JSON object a line. Convert it: {convert_array(path)}"
        )
    refuse_utf_16(path)


def batches(part: Part, index: int, key: Key | None = None) -> Iterator[Batch]:
    """The part's lines in batches of about a MiB.

    Raises:
        ValueError: a compressed file is cut off or damaged.
    """
    key = part.key(key)
    if part.is_range:
        for start, end in pairwise(_edges(part, BATCH_BYTES, key)):
            yield Batch(index, part.path, start, end, columns=part.columns)
        return
    with readable(part.path):
        for start, lines in _read_batches(part, key):
            yield Batch(index, part.path, start, start + len(lines), lines, part.columns)


def _edges(part: Part, step: int, key: Key | None) -> Iterator[int]:
    """Where to cut: the part's start, the first new group after every `step` bytes, its end."""
    yield part.start
    last = part.start
    with part.path.open("rb") as handle:
        for nominal in range(part.start + step, part.end, step):
            edge = _next_group(handle, nominal, key) if nominal > last else last
            if last < edge < part.end:
                yield edge
                last = edge
    yield part.end


def _next_group(handle: IO[bytes], nominal: int, key: Key | None) -> int:
    """Where the first line after byte `nominal` begins whose group the line before it does not belong to."""
    handle.seek(nominal)
    _read_line(handle)
    edge = handle.tell()
    if key is None:
        return edge
    group: Any = None
    for number, line in enumerate(iter(partial(_read_line, handle), b"")):
        if number and key(line) != group:
            return edge
        group = key(line)
        edge = handle.tell()
    return edge


def _read_line(handle: IO[bytes]) -> bytes:
    """The next line, of a very long one only the beginning."""
    line = handle.readline(MAX_ROW_BYTES)
    rest = line
    while rest and not rest.endswith(b"\n"):
        rest = handle.readline(MAX_ROW_BYTES)
    return line


def _read_batches(part: Part, key: Key | None) -> Iterator[tuple[int, bytes]]:
    """(where they begin, lines) of a file that cannot be entered in the middle."""
    held, start = b"", part.start
    chunks = _parquet_chunks(part.path) if part.path.suffix == ".parquet" else _chunks(part)
    for offset, chunk in chunks:
        if held and offset != start + len(held):  # behind a line that was cut short
            yield start, held
            held = b""
        start = start if held else offset
        whole, held = _hold_back(held + chunk, key)
        if whole:
            yield start, whole
            start += len(whole)
    if held:
        yield start, held


def _chunks(part: Part) -> Iterator[tuple[int, bytes]]:
    """(where they begin, whole lines), one or two BATCH_BYTES at a time.

    A line beyond MAX_ROW_BYTES comes alone, and only so much of it as shows its length.
    """
    with open_lines(part.path) as handle:
        if part.is_range:
            handle.seek(part.start)
        left = part.end - part.start if part.is_range else None
        offset, torn, torn_length = part.start, b"", 0
        # a batch of a file that can be entered is a little over BATCH_BYTES, and so read at once
        while data := handle.read(BATCH_BYTES if left is None else min(2 * BATCH_BYTES, left)):
            left = None if left is None else left - len(data)
            if torn_length > MAX_ROW_BYTES and (end := data.find(b"\n") + 1):
                yield offset, torn + b"\n"
                offset, torn, torn_length, data = offset + torn_length + end, b"", 0, data[end:]
            end = data.rfind(b"\n") + 1
            if end:
                yield offset, torn + data[:end]
                offset, torn, torn_length = offset + torn_length + end, data[end:], len(data) - end
            else:
                torn, torn_length = (torn + data)[: MAX_ROW_BYTES + 1], torn_length + len(data)
        if torn:
            yield offset, torn + b"\n"


def _parquet_chunks(path: Path) -> Iterator[tuple[int, bytes]]:
    rows, offset = parquet_rows(path), 0
    while group := list(islice(rows, PARQUET_ROWS)):
        lines = b"".join(dumps(row, default=_as_text) + b"\n" for row in group)
        yield offset, lines
        offset += len(lines)


def _as_text(value: Any) -> str:
    """A value that JSON has no type for, as text: text that was stored as bytes, decimals, durations."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _hold_back(lines: bytes, key: Key | None) -> tuple[bytes, bytes]:
    """(lines whose groups are complete, lines of the last group), the second empty where groups do not matter."""
    if key is None:
        return lines, b""
    end = len(lines)
    start = lines.rfind(b"\n", 0, end - 1) + 1
    group = key(lines[start:end])
    while start > 0:
        before = lines.rfind(b"\n", 0, start - 1) + 1
        if key(lines[before:start]) != group:
            break
        start = before
    return lines[:start], lines[start:]
