"""Rows of files through worker processes, in order, in parts that survive a kill.

    mapped = map_rows(folder, files, partial(make_grader, "default"))

writes output.jsonl and dropped.jsonl, or, of more input than one part holds, output_00000.jsonl, ...; their bytes do not
depend on the number of workers. A rerun does the parts again that were not finished.
"""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson

from nemo_ext.files import atomic_open, write_json_atomic
from nemo_ext.manifest import Facts
from nemo_ext.ordered_pool import available_cores, ordered_map
from nemo_ext.progress import Progress
from nemo_ext.row_batches import PART_BYTES, Batch, Part, batches, parts
from nemo_ext.rows import Row, dumps
from nemo_ext.usable_rows import Unusable, count_usable, group_key, is_own, usable_rows

RowFunction = Callable[[list[Row], Counter[str]], Iterable[tuple[Row, str | None]]]
"""A batch -> in its order each row as it leaves and the reason to drop it, or None; the counter takes figures to add up."""
SMALL_BYTES = 32 << 20  # less is done before a worker has imported what it needs
KEEP = 0
PARTS = "parts"
WRITTEN = ("output", "dropped")
# A quotation mark inside a JSON string is escaped, so that these find keys alone.
_ID = re.compile(rb'\{"id":(?:"[^"\\]*"|-?\d+)')
_SAMPLE = re.compile(rb',"sample_index":\d+')

T = TypeVar("T")
B = TypeVar("B")


@dataclass
class Mapped:
    """What a pass over all rows has written and counted."""

    outputs: list[Path] = field(default_factory=list)
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.kept + sum(self.dropped.values())

    def facts(self, inputs: Sequence[Path], **more: Any) -> Facts:
        """What a stage returns about itself when this pass was its work; `more` are further fields of Facts."""
        of_pass: dict[str, Any] = {"outputs": self.outputs, "figures": self.figures, "dropped": self.dropped}
        return Facts(inputs=list(inputs), rows_in=self.total, rows_out=self.kept, **(of_pass | more))

    @property
    def figures(self) -> dict[str, int]:
        return dict(sorted(self.counts.items()))


@dataclass
class Piece:
    """What became of one batch."""

    kept: bytes
    num_kept: int
    dropped: bytes
    reasons: Counter[str]
    counts: Counter[str]


def map_rows(
    folder: Path,
    files: Sequence[Path],
    make: Callable[[], RowFunction],
    *,
    workers: int | None = None,
    group_by: tuple[str, ...] = (),
    shard: int = 0,
    shards: int = 1,
    part_bytes: int = PART_BYTES,
) -> Mapped:
    """Pass every row through a function of its own in each worker process.

    Args:
        make: called once in each worker; travels there by pickle.
        workers: processes; None: the cores there are, and this process alone where the input is small.
        group_by: neighbouring rows that agree on these keys reach the function in one batch.
        shard, shards: of the input's parts, those with index % shards == shard.

    Raises:
        ValueError: a broken line in a stage's own file; more shards than parts. What the function raises comes through.
    """
    key = partial(group_key, group_by) if group_by else None
    cut = parts(files, part_bytes, key)
    if shards > max(1, len(cut)):
        raise ValueError(f"shards={shards}, but the input has {len(cut)} parts of {part_bytes >> 20} MiB: set no more")
    writer = _PartWriter(folder, cut, shard, shards)
    source = (batch for index in writer.open for batch in batches(cut[index], index, key))
    pieces = run_batches(partial(_row_mapper, make), source, worker_count(workers, files))
    return writer.write(pieces)


def scan_rows(
    files: Sequence[Path], make: Callable[[], Callable[[list[Row]], T]], *, workers: int | None = None
) -> Iterator[T]:
    """What the function says of each batch of usable rows, in order; nothing is written, other rows are passed over."""
    source = (batch for index, part in enumerate(parts(files)) for batch in batches(part, index))
    for _, result in run_batches(partial(_scanner, make), source, worker_count(workers, files)):
        yield result


def select_rows(
    folder: Path,
    files: Sequence[Path],
    codes: "np.ndarray[Any, Any]",
    reasons: Sequence[str],
    *,
    workers: int | None = None,
    compact: bool = False,
    notes: Callable[[int], Row] | None = None,
    lengths: Sequence[int] | None = None,
) -> Mapped:
    """Copy the rows whose code is 0, drop the others as `reasons[code - 1]`.

    Args:
        codes: [rows] of small integers, one per usable row in the order of `scan_rows`.
        compact: of a dropped row only id, sample_index and reason are written; the row itself is in the input.
        notes: row number -> keys added to a row that is dropped.
        lengths: rows of each batch, where `scan_rows` has found them; else they are counted.

    Raises:
        AssertionError: not one code per row.
    """
    cut = parts(files)
    writer = _PartWriter(folder, cut, 0, 1)
    source = _with_codes(cut, set(writer.open), np.asarray(codes), notes, lengths)
    return writer.write(run_batches(partial(_Selector, tuple(reasons), compact), source, worker_count(workers, files)))


@dataclass(frozen=True)
class _Coded:
    """A batch with its rows' codes."""

    batch: Batch
    codes: bytes
    notes: dict[int, Row]

    @property
    def part(self) -> int:
        return self.batch.part


def _with_codes(
    cut: list[Part],
    wanted: set[int],
    codes: "np.ndarray[Any, Any]",
    notes: Callable[[int], Row] | None,
    lengths: Sequence[int] | None,
) -> Iterator[_Coded]:
    first = 0
    every = (batch for index, part in enumerate(cut) for batch in batches(part, index))
    for number, batch in enumerate(every):
        count = lengths[number] if lengths is not None else count_usable(batch)
        here = codes[first : first + count]
        assert len(here) == count, f"{len(codes)} codes for more rows"
        if batch.part in wanted:
            noted = {int(i): notes(first + int(i)) for i in np.flatnonzero(here)} if notes else {}
            yield _Coded(batch, here.astype(np.uint8).tobytes(), noted)
        first += count
    assert first == len(codes), f"{len(codes)} codes for {first} rows"


def worker_count(asked: int | None, files: Sequence[Path]) -> int:
    """`asked`, or a process per core, or one where there is little to do.

    Raises:
        ValueError: asked for less than one.
    """
    if asked is not None and asked < 1:
        raise ValueError(f"workers={asked}; it must be 1 or more, or null for one per core")
    small = sum(file.stat().st_size for file in files) < SMALL_BYTES
    return asked or (1 if small else available_cores())


def run_batches(make: Callable[[], Callable[[B], T]], source: Iterable[B], workers: int) -> Iterator[tuple[B, T]]:
    """(batch, function(batch)) in order, in `workers` processes or, of one, in this."""
    if workers > 1:
        yield from ordered_map(make, source, workers)
        return
    function = make()
    for batch in source:
        yield batch, function(batch)


def _row_mapper(make: Callable[[], RowFunction]) -> Callable[[Batch], Piece]:
    function = make()

    def apply(batch: Batch) -> Piece:
        rows: list[Row] = []
        unusable: list[tuple[Row, str | None]] = []
        for each in usable_rows(batch):
            if isinstance(each, Unusable):
                unusable.append((each.row, each.reason))
            else:
                rows.append(each)
        counts: Counter[str] = Counter()
        outcomes = list(function(rows, counts))
        assert len(outcomes) == len(rows), f"{len(rows)} rows in, {len(outcomes)} out"
        return _piece([*outcomes, *unusable], counts)

    return apply


def _piece(outcomes: list[tuple[Row, str | None]], counts: Counter[str]) -> Piece:
    kept = [dumps(row) for row, reason in outcomes if reason is None]
    reasons = Counter(reason for _, reason in outcomes if reason is not None)
    dropped = [dumps(row | {"reason": reason}) for row, reason in outcomes if reason is not None]
    return Piece(_lines(kept), len(kept), _lines(dropped), reasons, counts)


def _lines(texts: list[bytes]) -> bytes:
    return b"\n".join([*texts, b""]) if texts else b""


def _scanner(make: Callable[[], Callable[[list[Row]], T]]) -> Callable[[Batch], T]:
    function = make()
    return lambda batch: function([row for row in usable_rows(batch) if isinstance(row, dict)])


class _Selector:
    def __init__(self, reasons: tuple[str, ...], compact: bool) -> None:
        self.reasons, self.compact = reasons, compact
        self._endings = [b"," + dumps({"reason": reason})[1:] for reason in reasons]

    def __call__(self, coded: _Coded) -> Piece:
        if is_own(coded.batch.path):
            lines, unusable = _own_lines(coded.batch), []
        else:
            found = list(usable_rows(coded.batch))
            lines = [dumps(each) for each in found if isinstance(each, dict)]
            unusable = [each for each in found if isinstance(each, Unusable)]
        kept = [line for line, code in zip(lines, coded.codes, strict=True) if code == KEEP]
        dropped = [
            self._dropped(line, code - 1, coded.notes.get(place))
            for place, (line, code) in enumerate(zip(lines, coded.codes, strict=True))
            if code != KEEP
        ]
        counts = np.bincount(np.frombuffer(coded.codes, np.uint8), minlength=len(self.reasons) + 1)
        reasons = Counter(
            {reason: int(counts[code]) for code, reason in enumerate(self.reasons, start=1) if counts[code]}
        )
        reasons.update(each.reason for each in unusable)
        dropped += [dumps(each.row | {"reason": each.reason}) for each in unusable]
        return Piece(_lines(kept), len(kept), _lines(dropped), reasons, Counter())

    def _dropped(self, line: bytes, reason: int, more: Row | None) -> bytes:
        # Most rows of a large set are dropped when it is thinned: reading each would take twice as long as all else.
        if more is None and self.compact and (found := _ID.match(line)):
            index = _SAMPLE.search(line, found.end())
            return found[0] + (index[0] if index else b"") + self._endings[reason]
        row = orjson.loads(line)
        short = {key: row[key] for key in ("id", "sample_index") if key in row} if self.compact else row
        return dumps(short | (more or {}) | {"reason": self.reasons[reason]})


def _own_lines(batch: Batch) -> list[bytes]:
    return [line for _, lines in batch.pieces() for line in lines[:-1].split(b"\n")]


class _PartWriter:
    """Writes the pieces of each part, and remembers which parts are whole."""

    def __init__(self, folder: Path, cut: list[Part], shard: int, shards: int) -> None:
        _refuse_own_output(folder, cut)
        for place in (folder, folder / PARTS):
            remove_torn(place)
        self.folder, self.cut = folder, cut
        self.mine = list(range(shard, len(cut), shards))
        identity = [_identity(part) for part in cut]
        plan = folder / PARTS / "plan.json"
        if not plan.is_file() or json.loads(plan.read_text()) != identity:
            self._clear()
            write_json_atomic(plan, identity)
        self.open = [index for index in self.mine if not self._record(index).is_file()]
        self.progress = Progress(folder, "MiB")

    def write(self, pieces: Iterator[tuple[Any, Piece]]) -> Mapped:
        for index, group in groupby(pieces, key=lambda piece: piece[0].part):
            self._write_part(index, group)
        for index in self.open:
            if not self._record(index).is_file():  # no batch came of it: a file without rows
                self._write_part(index, iter(()))
        return self._total()

    def _write_part(self, index: int, group: Iterator[tuple[Any, Piece]]) -> None:
        kept = 0
        reasons: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        # dropped first in, last out: an output in place means that its other half is in place too
        with ExitStack() as stack:
            output = stack.enter_context(atomic_open(self._path("output", index)))
            dropped = stack.enter_context(atomic_open(self._path("dropped", index)))
            for batch, piece in group:
                output.write(piece.kept)
                dropped.write(piece.dropped)
                kept += piece.num_kept
                reasons.update(piece.reasons)
                counts.update(piece.counts)
                self._show(batch, kept)
        record = {"kept": kept, "dropped": reasons, "counts": counts}
        write_json_atomic(self._record(index), record)

    def _show(self, batch: Any, kept: int) -> None:
        whole = batch.batch if isinstance(batch, _Coded) else batch
        before = sum(self.cut[index].end - self.cut[index].start for index in self.mine if index < whole.part)
        total = sum(self.cut[index].end - self.cut[index].start for index in self.mine)
        here = whole.start - self.cut[whole.part].start if self.cut[whole.part].is_range else 0
        self.progress.update((before + here) >> 20, max(1, total >> 20), rows=kept)

    def _total(self) -> Mapped:
        mapped = Mapped([self._path("output", index) for index in self.mine])
        for index in self.mine:
            record = json.loads(self._record(index).read_text())
            mapped.kept += record["kept"]
            mapped.dropped.update(record["dropped"])
            mapped.counts.update(record["counts"])
        return mapped

    def _path(self, kind: str, index: int) -> Path:
        return self.folder / (f"{kind}.jsonl" if len(self.mine) == 1 else f"{kind}_{index:05d}.jsonl")

    def _record(self, index: int) -> Path:
        return self.folder / PARTS / f"{index:05d}.json"

    def _clear(self) -> None:
        """What was made of another input."""
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)
        for kind in WRITTEN:
            for path in self.folder.glob(f"{kind}*.jsonl"):
                path.unlink()


def remove_torn(folder: Path) -> None:
    """What a killed run had begun to write into `folder`: only one process may be at work there."""
    for path in folder.glob(".*.tmp"):
        path.unlink()


def _refuse_own_output(folder: Path, cut: list[Part]) -> None:
    """Files by the names that are written would be gone before they were read."""
    for path in {part.path for part in cut}:
        real = path.resolve()
        if real.parent == folder.resolve() and real.name.startswith(WRITTEN):
            raise ValueError(
                f"{path} is both input and output: choose another folder to write to, such as by run_name="
            )


def _identity(part: Part) -> dict[str, Any]:
    stat = part.path.stat()
    return asdict(part) | {"path": str(part.path), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
