"""An index of lines: any line of some files by its number, without holding the files; 8 bytes a line."""

import mmap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from nemo_ext.rows.exact_json import loads
from nemo_ext.rows.row import Row

_CHUNK = 1 << 24


class LineIndex:
    """The lines of `files`, one file after the other, newlines included; each ends in one.

    >>> with LineIndex([path]) as lines:
    ...     lines.row(3)
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = [path for path in files if path.stat().st_size]
        self._open = ExitStack()
        self._maps: list[mmap.mmap] = []
        self._ends: list[np.ndarray[Any, Any]] = []
        self._first = np.zeros(0, np.int64)

    def __enter__(self) -> Self:
        for path in self.files:
            handle = self._open.enter_context(path.open("rb"))
            self._maps.append(self._open.enter_context(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)))
            self._ends.append(_line_ends(self._maps[-1]))
        self._first = np.cumsum([0, *(len(ends) for ends in self._ends)])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(f"line {index} of {len(self)}")
        file = int(np.searchsorted(self._first, index, side="right")) - 1
        place, ends = index - int(self._first[file]), self._ends[file]
        return self._maps[file][int(ends[place - 1]) if place else 0 : int(ends[place])]

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(len(self)))

    def row(self, index: int) -> Row:
        """The JSON object on a line."""
        found: Row = loads(self[index])
        return found


def _line_ends(data: mmap.mmap) -> np.ndarray[Any, Any]:
    """Where each line ends: one past its newline."""
    found = []
    for start in range(0, len(data), _CHUNK):
        chunk = np.frombuffer(data[start : start + _CHUNK], np.uint8)
        found.append(np.flatnonzero(chunk == ord("\n")) + start + 1)
    return np.concatenate(found)
