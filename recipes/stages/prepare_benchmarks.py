"""Bring the test problems of every benchmark to one shape, and check that they are what they should be.

In:  per benchmark a .jsonl, .jsonl.zst or .parquet file, or `toy`
Out: {"id": "0", "benchmark": "amc23", "problem": "Cities $A$ and $B$ ...", "expected_answer": "27", ...}
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from omegaconf import MISSING

from nemo_ext.datasets import BadRow, normalise
from nemo_ext.manifest import Facts
from nemo_ext.row_batches import readable
from nemo_ext.rows import (
    MAX_ROW_BYTES,
    Row,
    RowWriter,
    content_id,
    open_lines,
    parquet_rows,
    parse_line,
    require_row_file,
    require_rows,
    shown,
)
from nemo_ext.toy.sources import TOY, benchmark
from recipes.stage import Stage

UNDERSTOOD = (
    "the problem as `problem` or `question`; the answer as `expected_answer` or `answer`, or in a last \\boxed{} of "
    "`solution`, `reference_solution` or `generated_solution`"
)


@dataclass(kw_only=True)
class Benchmark:
    path: str = MISSING
    """A file, or `toy`."""
    num_rows: int | None = None
    """How many problems it must have; for `toy`, has."""
    source: str = ""
    """For `toy`: which kind of problems, gsm8k or math."""


@dataclass(kw_only=True)
class Config(Stage):
    benchmarks: dict[str, Benchmark] = field(default_factory=dict)
    require_answers: bool = True
    """false: a problem without an answer, one to prove say, gets expected_answer null. Enough to look for its copies; no
    model can be evaluated on it."""


def run(cfg: Config) -> Facts:
    folder = Path(cfg.output_dir)
    with RowWriter(folder) as out:
        for name, settings in cfg.benchmarks.items():
            before = out.kept
            for row in _rows(name, settings, cfg.require_answers):
                out.keep(row)
            _check_size(name, settings, out.kept - before)
        require_rows(out.kept, cfg.name, out.dropped)
    files = [Path(settings.path) for settings in cfg.benchmarks.values() if settings.path != TOY]
    return Facts(inputs=files, outputs=[folder / "output.jsonl"], rows_in=out.total, rows_out=out.kept)


def _check_size(name: str, settings: Benchmark, count: int) -> None:
    if count == 0:
        raise ValueError(f"benchmark {name}: {settings.path} has no problems: the file is empty")
    if settings.num_rows is not None and count != settings.num_rows:
        raise ValueError(
            f"benchmark {name}: {settings.path} has {count} problems, but conf/benchmark says "
            f"{settings.num_rows}. Scores on another set could not be compared."
        )


def _rows(name: str, settings: Benchmark, require_answers: bool) -> Iterator[Row]:
    """A benchmark is taken whole: a bad line is an error, not a drop."""
    for place, raw in _toy(settings) if settings.path == TOY else _read(Path(settings.path)):
        if isinstance(raw, str):
            raise ValueError(f"benchmark {name}: {place}: {raw}")
        try:
            row = _row(raw, name, require_answers)
        except BadRow as error:
            raise ValueError(f"benchmark {name}: {place}: {error}: {_lacks(raw, str(error))}") from error
        yield row | {"id": str(row["id"]), "benchmark": name}


def _lacks(raw: Row, what: str) -> str:
    without = ". Decontamination needs no answers: require_answers=false" if what == "no_answer" else ""
    return f"the row has the columns {', '.join(raw) or '(none)'}; understood are {UNDERSTOOD}{without}"


def _row(raw: Row, name: str, require_answers: bool) -> Row:
    try:
        return normalise(raw, name)
    except BadRow as error:
        if require_answers or str(error) != "no_answer":
            raise
    problem = str(raw.get("problem") or raw["question"]).strip()
    row = {"id": content_id(problem)} | raw | {"problem": problem, "expected_answer": None}
    return row if row["id"] not in (None, "") else row | {"id": content_id(problem)}


def _toy(settings: Benchmark) -> Iterator[tuple[str, Row | str]]:
    for number, row in enumerate(benchmark(settings.source, settings.num_rows or 0), start=1):
        yield f"{TOY}: row {number}", row


def _read(path: Path) -> Iterator[tuple[str, Row | str]]:
    """(file, line and row number, the row or what is wrong with the line) of each."""
    require_row_file(path)
    with readable(path):
        yield from _lines(path)


def _lines(path: Path) -> Iterator[tuple[str, Row | str]]:
    if path.suffix == ".parquet":
        yield from ((f"{path}: row {number}", row) for number, row in enumerate(parquet_rows(path), start=1))
        return
    with open_lines(path) as handle:
        filled = ((number, line) for number, line in enumerate(handle, start=1) if line.strip())
        for row_number, (number, line) in enumerate(filled, start=1):
            row = parse_line(line) if len(line) <= MAX_ROW_BYTES else None
            yield f"{path}: line {number}, row {row_number}", _why(line) if row is None else row


def _why(line: bytes) -> str:
    if len(line) > MAX_ROW_BYTES:
        return f"{len(line):,} bytes, and a row may have {MAX_ROW_BYTES:,}"
    try:
        wrong = f"it is a {type(orjson.loads(line)).__name__}"
    except orjson.JSONDecodeError as error:
        wrong = str(error)
    return f"not a JSON object on a line of its own: {wrong}: {shown(line)!r}"
