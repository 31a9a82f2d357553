"""Samples of the same problem next to each other, whatever order a file has them in, without holding the file.

    with grouped(files, folder) as files: map_rows(folder, files, make, group_by=GROUP)

Output of `generate` is grouped as it is. Seed after seed, as NeMo-Skills' output-rs*.jsonl, it is first spread over buckets
on disk by a hash of the problem, and each bucket, small enough for memory, is sorted.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nemo_ext.records.file_records import stamp
from nemo_ext.records.files import atomic_open, write_json_atomic
from nemo_ext.rows.batches import Batch, batches, parts
from nemo_ext.rows.exact_json import dumps as json_bytes
from nemo_ext.rows.passes import run_batches, scan_rows, worker_count
from nemo_ext.rows.row import Row
from nemo_ext.rows.row_input import RowFiles
from nemo_ext.rows.usable import movable_rows, moved_row

GROUP = ("id", "problem")
BUCKET_BYTES = 64 << 20
MAX_BUCKETS = 512  # open files at once
FOLDER, COMPLETE = "grouped", "complete.json"


@contextmanager
def grouped(files: Sequence[Path], folder: Path, workers: int | None = None) -> Iterator[Sequence[Path]]:
    """Files with the same rows in which those of a problem are adjacent: the same files where they are so already, else
    buckets below `folder`, which are removed when the block ends well and taken up again after a kill.
    """
    if is_grouped(files, workers):
        yield files
        return
    place = folder / FOLDER
    columns = dict(files.columns) if isinstance(files, RowFiles) else {}
    identity = [columns, *([str(path), *stamp(path)] for path in files)]
    if not _complete(place, identity):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        _spread(files, place, workers)
        for bucket in sorted(place.glob("*.jsonl")):
            _sort(bucket)
        write_json_atomic(place / COMPLETE, {"files": identity, "buckets": _stamps(place)})
    yield sorted(place.glob("*.jsonl"))
    shutil.rmtree(place)


def is_grouped(files: Sequence[Path], workers: int | None = None) -> bool:
    """Does every problem's run of rows appear once? Takes 8 bytes a run."""
    runs = []
    for place in range(len(files)):
        hashes = [found for found in scan_rows(files[place : place + 1], _hasher, workers=workers) if len(found)]
        if hashes:
            each = np.concatenate(hashes)
            runs.append(each[np.concatenate([[True], each[1:] != each[:-1]])])
    if not runs:
        return True
    every = np.sort(np.concatenate(runs))
    return bool((every[1:] != every[:-1]).all())


def _complete(place: Path, identity: list[Any]) -> bool:
    """Whether the buckets are of these files, and as they were written."""
    try:
        found = json.loads((place / COMPLETE).read_text())
    except (FileNotFoundError, ValueError):
        return False
    return bool(found == {"files": identity, "buckets": _stamps(place)})


def _stamps(place: Path) -> list[Any]:
    return [[path.name, *stamp(path)] for path in sorted(place.glob("*.jsonl"))]


def _hasher() -> Any:
    return lambda rows: np.fromiter((_hash(row) for row in rows), np.uint64, len(rows))


def _hash(row: Row) -> int:
    text = json_bytes([row.get(key) for key in GROUP])
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _spread(files: Sequence[Path], place: Path, workers: int | None) -> None:
    size = sum(path.stat().st_size * (4 if path.suffix in {".zst", ".parquet"} else 1) for path in files)
    count = min(MAX_BUCKETS, size // BUCKET_BYTES + 1)
    source = (batch for index, part in enumerate(parts(files)) for batch in batches(part, index))
    with ExitStack() as stack:
        handles = [stack.enter_context((place / f"{i:05d}.jsonl").open("wb")) for i in range(count)]
        for _, lines in run_batches(partial(_spreader, count), source, worker_count(workers, files)):
            for bucket, text in lines.items():
                handles[bucket].write(text)


def _spreader(count: int) -> Any:
    def spread(batch: Batch) -> dict[int, bytes]:
        found: dict[int, list[bytes]] = {}
        for row, line in movable_rows(batch):
            found.setdefault(_hash(row) % count if row else 0, []).append(line + b"\n")
        return {bucket: b"".join(lines) for bucket, lines in found.items()}

    return spread


def _sort(bucket: Path) -> None:
    """Sort by problem, with problems and samples in the order in which they were first seen."""
    groups: dict[Any, list[bytes]] = {}
    with bucket.open("rb") as handle:
        for line in handle:
            groups.setdefault(_hash(moved_row(line)), []).append(line)
    with atomic_open(bucket) as out:
        for lines in groups.values():
            out.write(b"".join(lines))
