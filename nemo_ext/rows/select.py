"""Rows chosen by a number each: what a look at all rows has decided, carried out.

mapped = select_rows(folder, files, codes, ("not_sampled", "not_correct"))
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nemo_ext.rows.batches import Batch, Part, batches, parts
from nemo_ext.rows.exact_json import loads
from nemo_ext.rows.part_files import Mapped, PartWriter, Piece, joined
from nemo_ext.rows.passes import run_batches, worker_count
from nemo_ext.rows.row import Row, dumps
from nemo_ext.rows.row_input import is_own
from nemo_ext.rows.usable import Unusable, count_usable, own_lines, usable_rows

KEEP = 0
# A quotation mark inside a JSON string is escaped, so that these find keys alone.
_ID = re.compile(rb'\{"id":(?:"[^"\\]*"|-?\d+)')
_SAMPLE = re.compile(rb',"sample_index":\d+')


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
    chosen = np.ascontiguousarray(codes)
    writer = PartWriter(folder, cut, 0, 1, hashlib.sha256(chosen.data).hexdigest())
    source = _with_codes(cut, set(writer.open), chosen, notes, lengths)
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

    @property
    def start(self) -> int:
        return self.batch.start


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


class _Selector:
    def __init__(self, reasons: tuple[str, ...], compact: bool) -> None:
        self.reasons, self.compact = reasons, compact
        self._endings = [b"," + dumps({"reason": reason})[1:] for reason in reasons]

    def __call__(self, coded: _Coded) -> Piece:
        layouts: Counter[str] = Counter()
        if is_own(coded.batch.path):
            lines, unusable = own_lines(coded.batch), []
        else:
            found = list(usable_rows(coded.batch, layouts))
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
        return Piece(joined(kept), len(kept), joined(dropped), reasons, Counter(), layouts)

    def _dropped(self, line: bytes, reason: int, more: Row | None) -> bytes:
        # Most rows of a large set are dropped when it is thinned: reading each would take twice as long as all else.
        if more is None and self.compact and (found := _ID.match(line)):
            index = _SAMPLE.search(line, found.end())
            return found[0] + (index[0] if index else b"") + self._endings[reason]
        row = loads(line)
        short = {key: row[key] for key in ("id", "sample_index") if key in row} if self.compact else row
        return dumps(short | (more or {}) | {"reason": self.reasons[reason]})
