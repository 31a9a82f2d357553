"""Rows of one part of the input into the files of every split: parquet, and JSONL with zstd.

A split is the rows of the lowest ranks, so smaller splits are part of larger ones.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nemo_ext.curation.choosing.row_keys import published_solution
from nemo_ext.publish import COLUMNS
from nemo_ext.records.file_records import difference, record, stamp
from nemo_ext.records.files import atomic_open, write_json_atomic
from nemo_ext.rows.batches import Batch, Part, batches
from nemo_ext.rows.row import Row, dumps
from nemo_ext.rows.usable import Unusable, usable_rows

LENGTH_STEP = 250  # characters, of the histogram of solutions
MAX_LENGTH = 4000
ROW_GROUP_BYTES = 32 << 20  # of text: what a reader of parquet takes into memory at once
RECORDS = "parts"
COUNTERS = ("dropped", "splits", "sources", "lengths", "sizes", "layouts")
_ZSTD = pa.Codec("zstd")


@dataclass
class Written:
    """What a part has come to. `splits` counts the rows of each and `sizes` their bytes as Arrow tables, `sources` and
    `lengths` the rows of the largest, `layouts` those from outside; `digests` are of the rows of each part."""

    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    lengths: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    layouts: Counter[str] = field(default_factory=Counter)
    digests: list[str] = field(default_factory=list)

    def add(self, other: "Written") -> None:
        self.kept += other.kept
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        self.digests += other.digests


@dataclass(frozen=True)
class Task:
    """A part of the input and the ranks of its usable rows."""

    index: int
    part: Part
    ranks: bytes


def released(row: Row, more: Sequence[str] = ()) -> Row | str:
    """The row as it is released, with the columns `more`; or why it cannot be."""
    solution = published_solution(row)
    if solution is None:
        return "no_solution"
    answer = row.get("expected_answer")
    published = (row["problem"], solution, "" if answer is None else str(answer), str(row.get("problem_source") or ""))
    return dict(zip(COLUMNS, published, strict=True)) | {key: row.get(key) for key in more}


def file_name(split: str, index: int, count: int, ending: str) -> str:
    """`train-00000-of-00027.parquet`"""
    return f"{split}-{index:05d}-of-{count:05d}.{ending}"


def make_writer(
    folder: Path, splits: Mapping[str, int | None], count: int, more: Sequence[str]
) -> Callable[[Task], Written]:
    """What writes one of `count` tasks' files into `folder`; a task whose files are whole is not done again."""

    def write(task: Task) -> Written:
        ranks = hashlib.sha256(task.ranks).hexdigest()
        identity = [str(task.part), *stamp(task.part.path), ranks, dict(splits), list(more), count, COUNTERS]
        place = folder.parent / RECORDS / f"{task.index:05d}.json"
        if (known := _whole(place, json.loads(json.dumps(identity)))) is not None:
            counters = {name: Counter(known[name]) for name in COUNTERS}
            return Written(known["kept"], digests=known["digests"], **counters)
        written = _write(task, folder, splits, count, more)
        files = [record(path) for name in splits for path in _paths(folder, name, task.index, count).values()]
        write_json_atomic(place, {"identity": identity, "files": files, **vars(written)})
        return written

    return write


def _whole(place: Path, identity: list[Any]) -> dict[str, Any] | None:
    """What is recorded of a task, if that was the same task and its files are what they were."""
    try:
        known: dict[str, Any] = json.loads(place.read_text())
        same = known["identity"] == identity and not any(map(difference, known["files"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known if same else None


def _paths(folder: Path, split: str, index: int, count: int) -> dict[str, Path]:
    return {
        "parquet": folder / "data" / file_name(split, index, count, "parquet"),
        "jsonl": folder / "jsonl" / file_name(split, index, count, "jsonl.zst"),
    }


def _write(task: Task, folder: Path, splits: Mapping[str, int | None], count: int, more: Sequence[str]) -> Written:
    written, ranks, first = Written(), np.frombuffer(task.ranks, np.int32), 0
    with ExitStack() as stack:
        outputs = {name: stack.enter_context(_SplitFile(folder, name, task.index, count, more)) for name in splits}
        for batch in batches(task.part, task.index):
            rows = list(_released(batch, more, written))
            here = ranks[first : first + len(rows)]
            first += len(rows)
            for name, num in splits.items():
                chosen = [
                    row
                    for row, rank in zip(rows, here, strict=True)
                    if isinstance(row, dict) and (num is None or rank < num)
                ]
                outputs[name].add(chosen)
                written.splits[name] += len(chosen)
    for name, output in outputs.items():
        written.sizes[name] += output.arrow_bytes
    written.digests.append(hashlib.sha256(b"".join(each.digest.digest() for each in outputs.values())).hexdigest())
    return written


def _released(batch: Batch, more: Sequence[str], written: Written) -> Iterator[Row | str]:
    for each in usable_rows(batch, written.layouts):
        if isinstance(each, Unusable):
            written.dropped[each.reason] += 1
            continue
        row = released(each, more)
        if isinstance(row, str):
            written.dropped[row] += 1
        else:
            written.kept += 1
            written.sources[row["problem_source"]] += 1
            length = min(MAX_LENGTH, len(row["generated_solution"]) // LENGTH_STEP * LENGTH_STEP)
            written.lengths[str(length)] += 1
        yield row


class _SplitFile:
    """Both files of a split for one part; they appear when the block ends well."""

    def __init__(self, folder: Path, split: str, index: int, count: int, more: Sequence[str]) -> None:
        self.paths = _paths(folder, split, index, count)
        self.schema = pa.schema([(name, pa.string()) for name in (*COLUMNS, *more)])
        self.more = more
        self._stack = ExitStack()
        self._waiting: list[Row] = []
        self._waiting_bytes = self.arrow_bytes = 0
        self.digest = hashlib.sha256()

    def __enter__(self) -> "_SplitFile":
        parquet = self._stack.enter_context(atomic_open(self.paths["parquet"]))
        self._lines = self._stack.enter_context(atomic_open(self.paths["jsonl"]))
        self._table = self._stack.enter_context(pq.ParquetWriter(parquet, self.schema, compression="zstd"))
        return self

    def add(self, rows: list[Row]) -> None:
        if rows:
            text = b"\n".join([*map(dumps, rows), b""])
            self.digest.update(text)
            self._lines.write(_ZSTD.compress(text, asbytes=True))  # frames one after another are a zstd file
            self._waiting += rows
            self._waiting_bytes += len(text)
            if self._waiting_bytes > ROW_GROUP_BYTES:
                self._flush()

    def _flush(self) -> None:
        if self._waiting:
            extra = [{name: _as_text(row[name]) for name in self.more} for row in self._waiting]
            rows = [row | more for row, more in zip(self._waiting, extra, strict=True)]
            table = pa.Table.from_pylist(rows, schema=self.schema)
            self.arrow_bytes += table.nbytes
            self._table.write_table(table)
        self._waiting, self._waiting_bytes = [], 0

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._stack.__exit__(kind, error, trace)


def _as_text(value: Any) -> str | None:
    """Columns beyond the released ones have one type in every file, whatever the rows hold."""
    return value if value is None or isinstance(value, str) else dumps(value).decode()
