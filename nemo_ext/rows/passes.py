"""Rows of files through worker processes, in order, in parts that survive a kill.

    mapped = map_rows(folder, files, partial(make_grader, "default"))

writes output.jsonl and dropped.jsonl, or, of more input than one part holds, output_00000.jsonl, ...; their bytes do not
depend on the number of workers. A rerun does the parts again that were not finished.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import orjson

from nemo_ext.rows.batches import PART_BYTES, Batch, batches, parts
from nemo_ext.rows.engines.processes import available_cores, ordered_map
from nemo_ext.rows.exact_json import loads
from nemo_ext.rows.part_files import Mapped, PartWriter, Piece, joined
from nemo_ext.rows.row import Row, RowOutcome, dumps
from nemo_ext.rows.row_input import is_own
from nemo_ext.rows.usable import Unusable, group_key, own_lines, usable_rows

RowFunction = Callable[[list[Row], Counter[str]], Iterable[RowOutcome]]
"""A batch -> the outcome of each row, in order; the counter takes figures to add up."""
SMALL_BYTES = 32 << 20  # less is done before a worker has imported what it needs

T = TypeVar("T")
B = TypeVar("B")


@dataclass(frozen=True)
class EachRow:
    """A RowFunction that takes a row at a time and may make several of it; rows in + made = out + dropped.

    Args:
        outcomes: of one row; at least one, so that no row goes without a reason.
    """

    outcomes: Callable[[Row, Counter[str]], Iterable[RowOutcome]]

    def __call__(self, rows: list[Row], counts: Counter[str]) -> Iterator[RowOutcome]:
        for row in rows:
            became = list(self.outcomes(row, counts))
            assert became, f"nothing says what became of row {row.get('id')!r}"
            yield from became


@dataclass(frozen=True)
class EachGroup:
    """A RowFunction that takes the neighbouring rows that agree on `keys`, as map_rows' group_by brings them, and may make
    more of them; rows in + made = out + dropped.

    Args:
        outcomes: of the rows of a group; at least as many as it has.
    """

    keys: tuple[str, ...]
    outcomes: Callable[[list[Row], Counter[str]], Iterable[RowOutcome]]

    def __call__(self, rows: list[Row], counts: Counter[str]) -> Iterator[RowOutcome]:
        for _, group in groupby(rows, key=lambda row: [row.get(key) for key in self.keys]):
            members = list(group)
            became = list(self.outcomes(members, counts))
            assert len(became) >= len(members), f"not every row of {members[0].get('id')!r} is accounted for"
            yield from became


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
    rests_on: str = "",
) -> Mapped:
    """Pass every row through a function of its own in each worker process.

    Args:
        files: of `row_input.RowFiles` the columns are renamed first.
        make: called once in each worker; travels there by pickle. The function gives each row one outcome, or is an EachRow
            or EachGroup.
        workers: processes; None: the cores there are, and this process alone where the input is small.
        group_by: neighbouring rows that agree on these keys reach the function in one batch.
        shard, shards: of the input's parts, those with index % shards == shard.
        rests_on: stands for what the function depends on besides the rows and the stage's config: with another, parts of
            an earlier run are made again.

    Raises:
        ValueError: a broken line in a stage's own file; more shards than parts. What the function raises comes through.
    """
    key = partial(group_key, group_by) if group_by else None
    cut = parts(files, part_bytes, key)
    if shards > max(1, len(cut)):
        raise ValueError(f"shards={shards}, but the input has {len(cut)} parts of {part_bytes >> 20} MiB: set no more")
    writer = PartWriter(folder, cut, shard, shards, rests_on)
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
        unusable: list[RowOutcome] = []
        layouts: Counter[str] = Counter()
        for each in usable_rows(batch, layouts):
            if isinstance(each, Unusable):
                unusable.append((each.row, each.reason))
            else:
                rows.append(each)
        counts: Counter[str] = Counter()
        outcomes = list(function(rows, counts))
        made = len(outcomes) - len(rows)
        assert made == 0 or isinstance(function, EachRow | EachGroup), f"{len(rows)} rows in, {len(outcomes)} out"
        return _piece([*outcomes, *unusable], made, counts, layouts)

    return apply


def _piece(outcomes: list[RowOutcome], made: int, counts: Counter[str], layouts: Counter[str]) -> Piece:
    kept = [dumps(row) for row, reason in outcomes if reason is None]
    reasons = Counter(reason for _, reason in outcomes if reason is not None)
    dropped = [dumps(row | {"reason": reason}) for row, reason in outcomes if reason is not None]
    return Piece(joined(kept), len(kept), joined(dropped), reasons, counts, layouts, made)


def _scanner(make: Callable[[], Callable[[list[Row]], T]]) -> Callable[[Batch], T]:
    function = make()
    return lambda batch: function(_rows(batch))


def _rows(batch: Batch) -> list[Row]:
    """The usable ones. A stage's own lines are all rows, which need not be looked at one by one."""
    if is_own(batch.path):
        try:
            rows = [loads(line) for line in own_lines(batch)]
        except orjson.JSONDecodeError:
            rows = [None]
        if all(type(row) is dict for row in rows):
            return rows
    return [row for row in usable_rows(batch) if isinstance(row, dict)]  # says which line is broken
