"""The distinct problems of a data set and what was found for each, on disk in parts that a killed run need not do again.

<folder>/plan.json               what it was made from; written when every problem is there
<folder>/problems_00000.jsonl    {"id": "9c1e...", "problem": "Ava has 7 pens ...", "expected_answer": "19"}
<folder>/found_00000.jsonl       of the same line: {"hits": [...], "near": [[12, 0.83], ...]}
<folder>/found_00000.json        its hash; those of the other files are in plan.json
<folder>/rows.npy                of each problem, how many rows have it
"""

import hashlib
import json
import shutil
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from nemo_ext.curation.contamination.candidates import Found, Methods, Search, found_of
from nemo_ext.records.file_records import difference, record
from nemo_ext.records.files import atomic_open, write_json_atomic
from nemo_ext.rows.engines.processes import available_cores, ordered_map
from nemo_ext.rows.passes import scan_rows
from nemo_ext.rows.row import Row, dumps, read_rows

PART_PROBLEMS = 10_000
FEW_PARTS = 2  # are done before a worker has imported what it needs
PLANTED = "contaminates"
"""In rows that were planted for a test: the id of the benchmark problem that they restate."""
STATES_TASK = "states_task"
"""In rows whose truth is known: an address of the task that the problem states, in whatever words."""


class Parts:
    """Problems in the order of their first row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def rows(self) -> "np.ndarray[Any, Any]":
        """[problems] how many rows have it."""
        return np.load(self.folder / "rows.npy")

    @property
    def count(self) -> int:
        return int(self._plan()["parts"])

    def _plan(self) -> dict[str, Any]:
        path = self.folder / "plan.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def collect(self, files: Sequence[Path], identity: dict[str, Any], workers: int | None) -> None:
        """Write every distinct problem of the files, unless they were written from the same `identity` before and are still
        what was written."""
        plan = self._plan()
        if plan.get("identity") == identity and not any(map(difference, plan["files"])):
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        problems = _Distinct(scan_rows(files, _problems_of, workers=workers))
        count = 0
        while part := list(islice(problems, PART_PROBLEMS)):
            _write(self._problems(count), part)
            count += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_open(self.folder / "rows.npy") as handle:
            np.save(handle, np.array(problems.rows, dtype=np.int64))
        written = [record(path) for path in (self.folder / "rows.npy", *map(self._problems, range(count)))]
        write_json_atomic(self.folder / "plan.json", {"identity": identity, "parts": count, "files": written})

    def search(
        self, tests: list[Row], methods: Methods, workers: int | None, show: Callable[[int, int], None]
    ) -> None:
        """Find what each problem may be a copy of, in the parts where that is not done; `show(done, all)` parts."""
        total = self.count
        waiting = [number for number in range(total) if not self._is_whole(number)]
        make = partial(_searcher, self.folder, tests, methods)
        alone = len(waiting) <= FEW_PARTS and workers is None
        finished: Iterator[Any]
        if alone or workers == 1 or "dense" in methods.retrieval:  # an encoder has all cores, or the GPU, to itself
            finished = map(make(), waiting) if waiting else iter(())
        else:
            finished = ordered_map(make, waiting, workers or available_cores())
        for done, _ in enumerate(finished, start=total - len(waiting) + 1):
            show(done, total)

    def read(self) -> Iterator[tuple[int, Row, Found]]:
        """(number, problem, what was found for it) of all."""
        number = 0
        for part in range(self.count):
            for row, found in zip(read_rows(self._problems(part)), read_rows(self._found(part)), strict=True):
                yield number, row, found_of(found)
                number += 1

    def _is_whole(self, number: int) -> bool:
        """What was found for them is there, as it was written."""
        try:
            return difference(json.loads(self._record(number).read_text())) is None
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _record(self, number: int) -> Path:
        return self.folder / f"found_{number:05d}.json"

    def _problems(self, number: int) -> Path:
        return self.folder / f"problems_{number:05d}.jsonl"

    def _found(self, number: int) -> Path:
        return self.folder / f"found_{number:05d}.jsonl"


def _searcher(folder: Path, tests: list[Row], methods: Methods) -> Callable[[int], None]:
    search, parts = Search(tests, methods), Parts(folder)

    def find(number: int) -> None:
        found = search(list(read_rows(parts._problems(number))))
        _write(parts._found(number), [each.as_row() for each in found])
        write_json_atomic(parts._record(number), record(parts._found(number)))

    return find


def _write(path: Path, rows: Sequence[Row]) -> None:
    with atomic_open(path) as handle:
        handle.writelines(dumps(row) + b"\n" for row in rows)


Seen = tuple[bytes, Row, int]
"""Hash of a problem, the problem, how many rows of a batch have it."""


def _problems_of() -> Callable[[list[Row]], list[Seen]]:
    def distinct(rows: list[Row]) -> list[Seen]:
        found: dict[str, tuple[Row, int]] = {}
        for row in rows:
            problem = row.get("problem")
            if isinstance(problem, str):
                first, count = found.get(problem, (row, 0))
                found[problem] = (first, count + 1)
        return [(_digest(problem), _problem(row), count) for problem, (row, count) in found.items()]

    return distinct


def _digest(problem: str) -> bytes:
    return hashlib.blake2b(problem.encode(), digest_size=16).digest()


def _problem(row: Row) -> Row:
    answer = row.get("expected_answer")
    kept = {"id": row.get("id"), "problem": row["problem"], "expected_answer": None if answer is None else str(answer)}
    return kept | {key: row[key] for key in (PLANTED, STATES_TASK) if row.get(key)}


class _Distinct:
    """Each problem once, as it is first seen; `rows` counts all."""

    def __init__(self, batches: Iterator[list[Seen]]) -> None:
        self.rows = array("q")
        self._places: dict[bytes, int] = {}
        self._problems = self._new(batches)

    def _new(self, batches: Iterator[list[Seen]]) -> Iterator[Row]:
        for batch in batches:
            for digest, problem, count in batch:
                place = self._places.setdefault(digest, len(self.rows))
                if place < len(self.rows):
                    self.rows[place] += count
                else:
                    self.rows.append(count)
                    yield problem

    def __iter__(self) -> Iterator[Row]:
        return self._problems
