"""Files known by their content: what is recorded of one, and whether it is still what was recorded.

{"path": "runs/x/grade/output.jsonl", "bytes": 8123, "mtime_ns": ..., "ctime_ns": ..., "inode": 77, "sha256": "9f...",
 "rows": 40}
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nemo_ext.records.files import sha256_file, write_json_atomic

MAX_THREADS = 16  # hashing leaves the interpreter free, and one thread reads slower than a good disk

TICK_NS = 20_000_000
"""File systems count time in steps of up to 10 ms: what was changed twice within one looks the same, so that a file so new
is not remembered."""

RACY_NS = 2_000_000_000
"""A hash is not kept for other processes where its file had changed so shortly before: on other machines' file systems and
clocks a second change might look like the first."""

Stamp = tuple[int, int, int, int]
"""Size, modification and change time, inode. The change time moves with every write and cannot be set: a file that was
edited and given its old date again has another."""

SHA256 = re.compile(r"[0-9a-f]{64}")

_known: dict[str, tuple[Stamp, str, int]] = {}
"""Stamp, hash, and when it was begun to be hashed. Of this process: a large file is read once, however many records name
it."""


def stamp(path: Path) -> Stamp:
    """Raises FileNotFoundError."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def content_hash(path: Path, just_written: bool = False) -> str:
    """sha256 of the whole file. `just_written`: by this process, so that however new it is nobody else has changed it."""
    key, now = os.path.abspath(path), stamp(path)
    found = _known.get(key)
    if found is not None and found[0] == now:
        return found[1]
    began_ns = time.time_ns()
    settled = just_written or began_ns - now[2] > TICK_NS
    digest = sha256_file(path)
    if settled and stamp(path) == now:
        _known[key] = (now, digest, began_ns)
    return digest


def recall(store: Path) -> None:
    """Take up the hashes that `keep` has left there. One counts only while the file's size, times and inode are those it
    was made of; a store that is damaged, or is not a store, says nothing."""
    try:
        kept = json.loads(store.read_bytes())
        found = {str(path): (_stamp_of(was), str(digest), int(hashed)) for path, (was, digest, hashed) in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return
    for path, each in found.items():
        if SHA256.fullmatch(each[1]) and _is_lasting(each[0], each[2]):
            _known.setdefault(path, each)


def keep(store: Path, paths: Iterable[Path]) -> None:
    """Leave the hashes of these files for other processes: of those that had not changed for RACY_NS when they were hashed.
    Nothing is written where the store has them."""
    found = {key: _known[key] for path in paths if (key := os.path.abspath(path)) in _known}
    lasting = {key: [list(each[0]), *each[1:]] for key, each in found.items() if _is_lasting(each[0], each[2])}
    try:
        before = json.loads(store.read_bytes())
    except (OSError, ValueError):
        before = None
    if lasting and lasting != before:
        write_json_atomic(store, lasting)


def _is_lasting(was: Stamp, hashed_ns: int) -> bool:
    return hashed_ns - max(was[1], was[2]) > RACY_NS


def _stamp_of(numbers: list[int]) -> Stamp:
    size, mtime, ctime, inode = numbers
    return int(size), int(mtime), int(ctime), int(inode)


def content_hashes(paths: Iterable[Path]) -> list[str]:
    """Hashes of many files, several computed at a time."""
    listed = list(paths)
    if len(listed) < 2:
        return [content_hash(path) for path in listed]
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1, len(listed))) as pool:
        return list(pool.map(content_hash, listed))


def fingerprint(files: Iterable[Path]) -> str:
    """16 hex digits for files of these names and contents, wherever they lie."""
    listed = sorted(files, key=lambda path: path.name)
    digest = hashlib.sha256()
    for path, content in zip(listed, content_hashes(listed), strict=True):
        digest.update(f"{path.name}:{content}\n".encode())
    return digest.hexdigest()[:16]


def describe_files(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """What manifests record of each: `record`, and the number of rows of a .jsonl."""
    listed = list(paths)
    return [_record(path, digest) | _rows(path) for path, digest in zip(listed, content_hashes(listed), strict=True)]


def describe_file(path: Path) -> dict[str, Any]:
    return describe_files([path])[0]


def record(path: Path) -> dict[str, Any]:
    """The record of a file that this process has just written, for `difference` to look at."""
    return _record(path, content_hash(path, just_written=True))


def _record(path: Path, digest: str) -> dict[str, Any]:
    size, mtime, ctime, inode = stamp(path)
    return {
        "path": str(path),
        "bytes": size,
        "mtime_ns": mtime,
        "ctime_ns": ctime,
        "inode": inode,
        "sha256": digest,
    }


def _rows(path: Path) -> dict[str, int]:
    if path.suffix != ".jsonl":
        return {}
    with path.open("rb") as handle:
        return {"rows": sum(1 for line in handle if line.strip())}


def difference(recorded: dict[str, Any], path: Path | None = None) -> str | None:
    """None: the file is what was recorded. Else `is gone` or `changed`.

    A file whose size, times and inode are as recorded is taken to be unchanged; otherwise its content decides, so that a
    copy or a touched file is the same one. Raises KeyError for what is not a record.
    """
    path = Path(recorded["path"]) if path is None else path
    try:
        now = stamp(path)
    except (FileNotFoundError, NotADirectoryError):
        return "is gone"
    if now == tuple(recorded[key] for key in ("bytes", "mtime_ns", "ctime_ns", "inode")):
        return None
    return "changed" if now[0] != recorded["bytes"] or content_hash(path) != recorded["sha256"] else None
