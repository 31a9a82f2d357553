"""Bring the test problems of every benchmark to one shape, and check that they are what they should be.

In:  per benchmark a .jsonl or .parquet file, or `toy`
Out: {"id": "0", "benchmark": "amc23", "problem": "Cities $A$ and $B$ ...", "expected_answer": "27", ...}
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.datasets import BadRow, normalise
from nemo_ext.manifest import Facts
from nemo_ext.rows import Row, RowWriter, read_any, require_rows
from nemo_ext.toy.sources import TOY, benchmark
from recipes.stage import Stage


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


def run(cfg: Config) -> Facts:
    folder = Path(cfg.output_dir)
    with RowWriter(folder) as out:
        for name, settings in cfg.benchmarks.items():
            before = out.kept
            for row in _rows(name, settings):
                out.keep(row)
            if settings.num_rows is not None and out.kept - before != settings.num_rows:
                raise ValueError(
                    f"benchmark {name}: {settings.path} has {out.kept - before} problems, but conf/benchmark says "
                    f"{settings.num_rows}. Scores on another set could not be compared."
                )
        require_rows(out.kept, cfg.name, out.dropped)
    files = [Path(settings.path) for settings in cfg.benchmarks.values() if settings.path != TOY]
    return Facts(inputs=files, outputs=[folder / "output.jsonl"], rows_in=out.total, rows_out=out.kept)


def _rows(name: str, settings: Benchmark) -> Iterator[Row]:
    """A benchmark is taken whole: a bad line is an error, not a drop."""
    if settings.path == TOY:
        rows: Iterator[Row | str] = iter(benchmark(settings.source, settings.num_rows or 0))
    else:
        rows = read_any(Path(settings.path))
    for number, raw in enumerate(rows, start=1):
        try:
            if isinstance(raw, str):
                raise BadRow(f"not a JSON object: {raw}")
            row = normalise(raw, name)
        except BadRow as error:
            raise ValueError(f"benchmark {name}: {settings.path}: row {number}: {error}") from error
        yield row | {"id": str(row["id"]), "benchmark": name}
