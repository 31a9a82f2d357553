"""Data that a page opened from disk can load: JSON in .js files that call a function, since file:// pages may not fetch.

explorer.receive("problems/0/00012", "H4sIAAAA...");     // base64 of gzip of a JSON list
"""

import base64
import gzip
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_ext.rows.exact_json import dumps

PART_BYTES = 1_000_000
"""No file is larger."""
RAW_BYTES = 720_000
"""JSON in one part: in base64, what can't be compressed is a third larger, and must fit in PART_BYTES."""
ENTRY_BYTES = 600_000
WRITERS = 2
GZIP_LEVEL = 5
"""6 takes twice the time for 7 % less."""


def entry(value: Any, max_chars: int) -> bytes:
    """JSON of at most ENTRY_BYTES: long texts are cut to `max_chars`, and to less where that is not enough."""
    data = dumps(value)
    # no text is longer than all of the JSON: most rows need not be looked through
    while len(data) > min(ENTRY_BYTES, max_chars) and max_chars:
        data = dumps(cut(value, max_chars))
        if len(data) <= ENTRY_BYTES:
            break
        max_chars //= 2
    return data


def cut(value: Any, max_chars: int) -> Any:
    """The value with every text of it, and every list, shortened, with a note at its end."""
    if isinstance(value, str) and len(value) > max_chars:
        return f"{value[:max_chars]}\n\u2026 {len(value) - max_chars:,} more characters"
    if isinstance(value, list):
        kept = [cut(each, max_chars) for each in value[:max_chars]]
        return [*kept, f"\u2026 {len(value) - max_chars:,} more"] if len(value) > max_chars else kept
    if isinstance(value, dict):
        return {key[:max_chars]: cut(each, max_chars) for key, each in value.items()}
    return value


@dataclass
class Written:
    """What has been written so far."""

    files: int = 0
    bytes: int = 0
    largest: int = 0
    pending: deque[Future[int]] = field(default_factory=deque)


class PartFolder:
    """Compresses parts side by side; never holds more than a few of them in memory."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self.folder, self.pool, self.written = folder, pool, Written()

    def write(self, name: str, entries: list[bytes]) -> None:
        """`<name>.js` with these entries as one JSON list."""
        while len(self.written.pending) >= 2 * WRITERS:
            self._take()
        self.written.pending.append(self.pool.submit(_write, self.folder, name, entries))

    def finish(self) -> Written:
        while self.written.pending:
            self._take()
        return self.written

    def _take(self) -> None:
        size = self.written.pending.popleft().result()
        self.written.files += 1
        self.written.bytes += size
        self.written.largest = max(self.written.largest, size)


@contextmanager
def part_folder(folder: Path) -> Iterator[PartFolder]:
    with ThreadPoolExecutor(WRITERS) as pool:
        parts = PartFolder(folder, pool)
        yield parts
        parts.finish()


def _write(folder: Path, name: str, entries: list[bytes]) -> int:
    packed = base64.b64encode(gzip.compress(b"[" + b",".join(entries) + b"]", GZIP_LEVEL, mtime=0))
    content = b'explorer.receive("%s","%s");\n' % (name.encode(), packed)
    assert len(content) <= PART_BYTES, f"{name}: {len(content)} bytes in one part"
    path = folder / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    return len(content)


class PartSeries:
    """Entries one after another in `<name>/00000.js`, `<name>/00001.js`, ..., each filled up to RAW_BYTES."""

    def __init__(self, parts: PartFolder, name: str) -> None:
        self.parts, self.name = parts, name
        self.count = 0
        """Parts that are written; entries added now go to the part of this number."""
        self._entries: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> int:
        """The number of the part that the entry is in."""
        if self._size + len(data) + 2 > RAW_BYTES:
            self.flush()
        self._entries.append(data)
        self._size += len(data) + 1
        return self.count

    def flush(self) -> None:
        if self._entries:
            self.parts.write(f"{self.name}/{self.count:05d}", self._entries)
            self.count += 1
            self._entries, self._size = [], 0
