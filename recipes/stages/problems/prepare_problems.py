"""Bring seed problems of several sources to one shape.

In:  per source rows in any layout that nemo_ext/rows/outside/adopt.py knows (GSM8K, MATH, our own columns, conversations
     of one turn), or with other columns and `columns`; or `toy`, a generator
Out: {"id": "9c1e...", "problem": "Ava has 7 pens. ...", "expected_answer": "19", "problem_source": "gsm8k"}
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from nemo_ext.rows.outside.adopt import adopt
from nemo_ext.rows.outside.columns import BadRow, renamed
from nemo_ext.rows.outside.known_shapes import normalise, problem_column
from nemo_ext.rows.outside.read import read_any
from nemo_ext.rows.row import MALFORMED, Row, RowWriter, require_rows
from nemo_ext.toy.sources import TOY, seeds
from recipes.stage import Stage

if TYPE_CHECKING:
    from nemo_ext.rows.row_input import RowFiles


@dataclass(kw_only=True)
class Source:
    path: str = field(default=MISSING, metadata={"path": True})
    """A file, a pattern or a folder of them, hf://<owner>/<data set>, or `toy`."""
    columns: Any = None
    """What a column is here -> its name in the file, as {problem: query}; null: not taken."""
    split: str | None = None
    """In a folder or on the hub: whose files."""
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
    files = _files(cfg)
    with RowWriter(folder) as out:
        for name, source in cfg.sources.items():
            for raw in _read(name, source, files, cfg.seed):
                if isinstance(raw, str):
                    out.drop({"line": raw, "problem_source": name}, MALFORMED)
                    continue
                try:
                    row = normalise(_asked(raw, source), name) | {"problem_source": name}
                except BadRow as error:
                    out.drop(raw | ({"detail": error.detail} if error.detail else {}), str(error))
                    continue
                if row["problem"] in seen:
                    out.drop(row, "duplicate_problem")
                else:
                    seen.add(row["problem"])
                    out.keep(row)
        require_rows(out.kept, cfg.name, out.dropped)
    return Facts(
        inputs=[path for each in files.values() for path in each],
        listed=[pattern for each in files.values() for pattern in each.listed],
        inputs_came_meanwhile=any(each.came_meanwhile for each in files.values()),
        outputs=[folder / "output.jsonl"],
        rows_in=out.total,
        rows_out=out.kept,
        dropped=out.dropped,
        seeds={"problems": cfg.seed},
    )


def _files(cfg: Config) -> "dict[str, RowFiles]":
    from nemo_ext.rows.row_input import row_files

    toy = next((name for name, each in cfg.sources.items() if each.path == TOY and (each.columns or each.split)), None)
    if toy is not None:
        raise ValueError(
            f"stages.{cfg.name}.sources.{toy}: toy has the names of here and no splits: leave columns and split out"
        )
    return {
        name: row_files(f"{cfg.name}.sources.{name}", [source.path], source.split, source.columns)
        for name, source in cfg.sources.items()
        if source.path != TOY
    }


def _asked(raw: Row, source: Source) -> Row:
    row = renamed(raw, source.columns) if source.columns else raw
    return row if problem_column(row) is not None else adopt(row).row


def _read(name: str, source: Source, files: "dict[str, RowFiles]", seed: int) -> Iterator[Row | str]:
    if source.path == TOY:
        yield from seeds(name, source.num_rows, source.contaminated, seed)
    else:
        for path in files[name]:
            yield from read_any(path)
