"""Bring seed problems of several sources to one shape.

In:  per source rows in any layout that nemo_ext/rows/outside/adopt.py knows (GSM8K, MATH, our own columns, conversations
     of one turn), or with other columns and `columns`
Out: {"id": "9c1e...", "problem": "Ava has 7 pens. ...", "expected_answer": "19", "problem_source": "gsm8k"}
"""

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from nemo_ext.rows.outside.adopt import adopt
from nemo_ext.rows.outside.columns import BadRow, renamed
from nemo_ext.rows.outside.known_shapes import normalise, problem_column
from nemo_ext.rows.outside.read import read_any
from nemo_ext.rows.row import MALFORMED, Row, RowWriter, require_rows
from nemo_ext.rows.row_input import RowFiles, row_files
from recipes.stage import Stage


@dataclass(kw_only=True)
class Source:
    path: str = field(default=MISSING, metadata={"path": True})
    """A file, a pattern or a folder of them, hf://<owner>/<data set>, or toy://seeds/<source>."""
    columns: Any = None
    """What a column is here -> its name in the file, as {problem: query}; null: not taken."""
    split: str | None = None
    """The split whose files are read, in a folder or on the hub."""


@dataclass(kw_only=True)
class Config(Stage):
    sources: dict[str, Source] = field(default_factory=dict)
    """problem_source -> where its problems are."""


def run(cfg: Config) -> Facts:
    folder = Path(cfg.output_dir)
    seen: set[str] = set()
    files = _files(cfg)
    with RowWriter(folder) as out:
        for name, source in cfg.sources.items():
            for raw in chain.from_iterable(map(read_any, files[name])):
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
    )


def _files(cfg: Config) -> dict[str, RowFiles]:
    return {
        name: row_files(
            f"{cfg.name}.sources.{name}", [source.path], source.split, source.columns, Path(cfg.output_dir)
        )
        for name, source in cfg.sources.items()
    }


def _asked(raw: Row, source: Source) -> Row:
    row = renamed(raw, source.columns) if source.columns else raw
    return row if problem_column(row) is not None else adopt(row).row
