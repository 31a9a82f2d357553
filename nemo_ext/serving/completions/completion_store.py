"""Completions on disk, so that a run killed at any byte loses at most the requests in flight.

One JSON line per completion; those of one request are appended with one write:
    {"key": "9f...", "text": "...", "finish_reason": "stop", "num_prompt_tokens": 52, ..., "attempts": 1, "crc32": 77}
"""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from nemo_ext.records.files import fsync_dir
from nemo_ext.serving.client.requests import Completion, completion_of, line_of, stored_row

log = logging.getLogger(__name__)

LENGTH_BITS = 32
MAX_LINE = (1 << LENGTH_BITS) - 1


def packed(key: str) -> bytes:
    """A third of the memory of the text for keys made of hex digits, as request_key makes them."""
    try:
        return bytes.fromhex(key)
    except ValueError:
        return b"text:" + key.encode()


def _place(offset: int, length: int) -> int:
    return offset << LENGTH_BITS | length


class CompletionStore:
    """Append-only map from request key to completion; for one process at a time.

    Opening truncates a last line that was cut, and skips lines that cannot be read or were edited (counted in
    `num_corrupt`), so those requests run again. Texts stay on disk; memory holds a key and a place per completion, some 170
    bytes.

    Args:
        fsync_rows, fsync_s: rows or seconds after which the next append reaches the disk itself. A killed process
            loses nothing that was appended; these bound what a power cut can take.

    Raises:
        ValueError: another process has the file open.
    """

    def __init__(self, path: Path, fsync_rows: int = 1000, fsync_s: float = 30.0) -> None:
        self.path = path
        self.num_corrupt = 0
        self._fsync_rows, self._fsync_s = fsync_rows, fsync_s
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._lock()
            self._index: dict[bytes, int] = {}  # the key's bytes -> offset and length in one number
            self._end = self._load()
        except BaseException:
            os.close(self._descriptor)
            raise
        fsync_dir(path.parent)
        self._unsynced, self._last_sync = 0, time.monotonic()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"{self.path}: another process is writing it; stop that one first") from error
        except OSError as error:
            log.warning("%s: this file system has no locks (%s); make sure one process writes it", self.path, error)

    def _load(self) -> int:
        """Build the index; returns the size of the file after cutting an incomplete last line."""
        offset = 0
        with open(self._descriptor, "rb", closefd=False) as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    log.warning("%s: the last line was cut at byte %d; removing it", self.path, offset)
                    os.ftruncate(self._descriptor, offset)
                    break
                self._index_line(line, offset)
                offset += len(line)
        if self.num_corrupt:
            log.warning(
                "%s: skipped %d lines that are not what was stored; they run again", self.path, self.num_corrupt
            )
        return offset

    def _index_line(self, line: bytes, offset: int) -> None:
        try:
            self._index[packed(stored_row(line)["key"])] = _place(offset, len(line))
        except ValueError:
            self.num_corrupt += 1

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: str) -> bool:
        return packed(key) in self._index

    def get(self, key: str) -> Completion:
        """Raises ValueError when the key has no completion."""
        place = self._index.get(packed(key))
        if place is None:
            raise ValueError(
                f"{self.path} has no completion of a request (key {key}) that was not among those asked: what it was made "
                "of was changed meanwhile. Run the same command again"
            )
        return completion_of(os.pread(self._descriptor, place & MAX_LINE, place >> LENGTH_BITS))

    def append(self, completions: Sequence[Completion]) -> None:
        """Append them with one write. A later completion of the same key replaces the earlier one.

        Raises:
            OSError: the disk is full or gone; what was stored before stays readable and appending may be tried again.
        """
        lines = [line_of(completion) for completion in completions]
        self._write(b"".join(lines))
        for completion, line in zip(completions, lines, strict=True):
            self._index[packed(completion.key)] = _place(self._end, len(line))
            self._end += len(line)
        self._unsynced += len(lines)
        if self._unsynced >= self._fsync_rows or time.monotonic() - self._last_sync >= self._fsync_s:
            self.sync()

    def _write(self, lines: bytes) -> None:
        try:
            written = os.write(self._descriptor, lines)
            if written != len(lines):  # only a full disk or a quota shortens a write to a file
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(self._descriptor, self._end)
            hint = "; free some space and run again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
            stored = f"{len(self)} completions are stored"
            raise OSError(error.errno, f"{error.strerror}{hint} ({stored})", str(self.path)) from error

    def sync(self) -> None:
        os.fsync(self._descriptor)
        self._unsynced, self._last_sync = 0, time.monotonic()

    def close(self) -> None:
        """Close the file and release it for other processes."""
        try:
            self.sync()
        finally:
            os.close(self._descriptor)

    def __enter__(self) -> "CompletionStore":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
