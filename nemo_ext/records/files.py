"""Writes that are either whole or absent, and the hashes that lineage is made of."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


def fsync_dir(path: Path) -> None:
    """Make a rename inside `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_open(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """A binary file that appears under `path` only when the block ends without an error. `durable`: on the disk by then,
    so that not even a machine that loses its power leaves a part of it.

    Raises:
        OSError: the disk is full or the folder is not writable; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
            if durable:
                handle.flush()
                os.fsync(handle.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600, which a colleague on a shared disk cannot read
        os.replace(temporary, path)
        if durable:
            fsync_dir(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text_atomic(path: Path, text: str, durable: bool = True) -> None:
    with atomic_open(path, durable) as handle:
        handle.write(text.encode())


def write_json_atomic(path: Path, value: Any) -> None:
    """Indented, keys in the given order, one newline at the end."""
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def disk_time_ns(folder: Path) -> int:
    """What time it is by the clock that files in `folder` get their dates from, which may be another machine's."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock.", suffix=".tmp") as file:
        return os.fstat(file.fileno()).st_mtime_ns


def sha256_file(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hash of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
