"""The files that a pass over rows writes: a part of the input after another, so that a killed pass goes on.

output.jsonl and dropped.jsonl, or, of more input than one part holds, output_00000.jsonl, ...; parts/<n>.json says of each
part that it is whole, and what its two files hold, parts/plan.json of what input. A file that is gone or holds something
else is made again.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from nemo_ext.records.file_records import difference, record, stamp
from nemo_ext.records.files import atomic_open, write_json_atomic
from nemo_ext.records.manifest import Facts
from nemo_ext.records.progress import Progress
from nemo_ext.rows.batches import Part
from nemo_ext.rows.row import Row
from nemo_ext.rows.row_input import RowFiles

PARTS = "parts"
WRITTEN = ("output", "dropped")


@dataclass
class Mapped:
    """What a pass over all rows has written and counted."""

    outputs: list[Path] = field(default_factory=list)
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    layouts: Counter[str] = field(default_factory=Counter)
    made: int = 0
    """Rows beyond one of each row in."""

    @property
    def total(self) -> int:
        """Rows in."""
        return self.kept + sum(self.dropped.values()) - self.made

    def facts(self, files: RowFiles, **more: Any) -> Facts:
        """What a stage returns about itself when this pass was its work; `more` are further fields of Facts."""
        counted = {"rows_in": self.total, "rows_made": self.made, "rows_out": self.kept, "dropped": self.dropped}
        figures = more.get("figures", self.figures) | self.layout_figures
        return Facts(**(files.facts | {"outputs": self.outputs} | counted | more | {"figures": figures}))

    @property
    def layout_figures(self) -> dict[str, Any]:
        """How many rows from outside were read as each layout; nothing of a stage's own."""
        return {"layouts": dict(sorted(self.layouts.items()))} if self.layouts else {}

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
    layouts: Counter[str] = field(default_factory=Counter)
    """How many rows from outside had each layout."""
    made: int = 0
    """Rows beyond one of each row in."""


def joined(texts: list[bytes]) -> bytes:
    return b"\n".join([*texts, b""]) if texts else b""


class PartWriter:
    """Writes the pieces of each part, and remembers which parts are whole.

    `rests_on` stands for all that the result depends on besides these parts and the stage's config, such as a tokenizer:
    parts that were made with another are made again.
    """

    def __init__(self, folder: Path, cut: list[Part], shard: int, shards: int, rests_on: str = "") -> None:
        _refuse_own_output(folder, cut)
        for place in (folder, folder / PARTS):
            remove_torn(place)
        self.folder, self.cut = folder, cut
        self.mine = list(range(shard, len(cut), shards))
        identity = {"rests_on": rests_on, "parts": [_identity(part) for part in cut]}
        plan = folder / PARTS / "plan.json"
        if _read(plan) != identity:
            self._clear()
            write_json_atomic(plan, identity)
        self.open = [index for index in self.mine if not self._is_whole(index)]
        for index in self.open:
            self._record(index).unlink(missing_ok=True)
        self.progress = Progress(folder, "MiB")

    def write(self, pieces: Iterator[tuple[Any, Piece]]) -> Mapped:
        # a part is synced to disk while the next one is made: its workers would be idle meanwhile
        with ThreadPoolExecutor(1) as disk:
            before: Future[None] | None = None
            for index, group in groupby(pieces, key=lambda piece: piece[0].part):
                finish = self._write_part(index, group)
                if before is not None:
                    before.result()
                before = disk.submit(finish)
            if before is not None:
                before.result()
        for index in self.open:
            if not self._record(index).is_file():  # no batch came of it: a file without rows
                self._write_part(index, iter(()))()
        return self._total()

    def _write_part(self, index: int, group: Iterator[tuple[Any, Piece]]) -> Callable[[], None]:
        """Write the part's files; the function that is returned syncs and names them, and then records the part."""
        kept = made = 0
        reasons: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        layouts: Counter[str] = Counter()
        # dropped first in, last out: an output in place means that its other half is in place too
        with ExitStack() as stack:
            output = stack.enter_context(atomic_open(self._path("output", index)))
            dropped = stack.enter_context(atomic_open(self._path("dropped", index)))
            for batch, piece in group:
                output.write(piece.kept)
                dropped.write(piece.dropped)
                kept += piece.num_kept
                made += piece.made
                reasons.update(piece.reasons)
                counts.update(piece.counts)
                layouts.update(piece.layouts)
                self._show(batch, kept)
            files = stack.pop_all()
        counted = {"kept": kept, "made": made, "dropped": reasons, "counts": counts, "layouts": layouts}
        return partial(self._finish, index, files, counted)

    def _finish(self, index: int, files: ExitStack, counted: Row) -> None:
        files.close()
        counted["files"] = {kind: record(self._path(kind, index)) for kind in WRITTEN}
        write_json_atomic(self._record(index), counted)

    def _is_whole(self, index: int) -> bool:
        """Recorded, and its files are what was recorded. A copied run folder's are, under another path."""
        try:
            files = json.loads(self._record(index).read_text())["files"]
            return all(difference(files[kind], self._path(kind, index)) is None for kind in WRITTEN)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _show(self, batch: Any, kept: int) -> None:
        before = sum(self.cut[index].end - self.cut[index].start for index in self.mine if index < batch.part)
        total = sum(self.cut[index].end - self.cut[index].start for index in self.mine)
        part = self.cut[batch.part]
        here = batch.start - part.start if part.is_range else 0
        # of a compressed file nobody knows how much is left, and a small one may hold much
        unpacked = {} if part.is_range else {"unpacked_MiB": batch.start >> 20}
        self.progress.update((before + here) >> 20, max(1, total >> 20), rows=kept, **unpacked)

    def _total(self) -> Mapped:
        mapped = Mapped([self._path("output", index) for index in self.mine])
        for index in self.mine:
            record = json.loads(self._record(index).read_text())
            mapped.kept += record["kept"]
            mapped.made += record.get("made", 0)
            mapped.dropped.update(record["dropped"])
            mapped.counts.update(record["counts"])
            mapped.layouts.update(record["layouts"])
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


def _read(plan: Path) -> Any:
    """None: there is none, or it is damaged."""
    try:
        return json.loads(plan.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _identity(part: Part) -> dict[str, Any]:
    return asdict(part) | {"path": str(part.path), "stamp": list(stamp(part.path))}
