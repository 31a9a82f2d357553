"""Bring seed problems of several sources to one shape.

In:  per source a .jsonl or .parquet file (GSM8K, MATH or our own columns), or `toy`, a generator
Out: {"id": "9c1e...", "problem": "Ava has 7 pens. ...", "expected_answer": "19", "problem_source": "gsm8k"}
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.columns import BadRow
from nemo_ext.datasets import normalise
from nemo_ext.manifest import Facts
from nemo_ext.row_files import read_any
from nemo_ext.rows import MALFORMED, Row, RowWriter, require_rows
from nemo_ext.toy.sources import TOY, seeds
from recipes.stage import Stage


@dataclass(kw_only=True)
class Source:
    path: str = MISSING
    """A file, or `toy`."""
    num_rows: int = 0
    """For `toy`: how many problems."""
    contaminated: int = 0
    """For `toy`: how many restated benchmark problems to hide among them."""


@dataclass(kw_only=True)
class Config(Stage):
    sources: dict[str, Source] = field(default_factory=dict)
    """problem_source -> where its problems are."""
    seed: int = 0


def run(cfg: Config) -> Facts:
    folder = Path(cfg.output_dir)
    seen: set[str] = set()
    with RowWriter(folder) as out:
        for name, source in cfg.sources.items():
            for raw in _read(name, source, cfg.seed):
                if isinstance(raw, str):
                    out.drop({"line": raw, "problem_source": name}, MALFORMED)
                    continue
                try:
                    row = normalise(raw, name) | {"problem_source": name}
                except BadRow as error:
                    out.drop(raw, str(error))
                    continue
                if row["problem"] in seen:
                    out.drop(row, "duplicate_problem")
                else:
                    seen.add(row["problem"])
                    out.keep(row)
        require_rows(out.kept, cfg.name, out.dropped)
    files = [Path(source.path) for source in cfg.sources.values() if source.path != TOY]
    return Facts(
        inputs=files,
        outputs=[folder / "output.jsonl"],
        rows_in=out.total,
        rows_out=out.kept,
        dropped=out.dropped,
        seeds={"problems": cfg.seed},
    )


def _read(name: str, source: Source, seed: int) -> Iterator[Row | str]:
    if source.path == TOY:
        yield from seeds(name, source.num_rows, source.contaminated, seed)
    else:
        yield from read_any(Path(source.path))
