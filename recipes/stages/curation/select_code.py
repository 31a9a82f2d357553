"""Choose between a problem's solutions with code and those in words.

In:  rows with a problem and generated_solution (or generation), those of a problem in any order
Out: the rows that stay, those of a problem together; the others as `has_code` or `has_no_code`
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from recipes.stage import RowStage, row_files

if TYPE_CHECKING:
    from nemo_ext.rows.passes import RowFunction
    from nemo_ext.rows.row import Row


@dataclass(kw_only=True)
class Config(RowStage):
    input: str = field(default=MISSING, metadata={"path": True})
    mode: str = "any_code"
    """any_code, majority_code, majority_text or all, as nemo_ext/curation/choosing/code_selection.py has them."""
    sources: list[str] = field(default_factory=list)
    """The values of problem_source whose solutions are chosen among; those of others all stay. Empty: every one.
    OpenMathInstruct-1 chose among MATH's alone."""
    total: int | None = None
    """Solutions of a problem of which a majority is one. None: those that reach this stage; a number: the samples that
    were drawn of each, as OpenMathInstruct-1 counts them, before its filters."""


def check(cfg: Config) -> None:
    from nemo_ext.curation.choosing.code_selection import MODES

    if cfg.mode not in MODES:
        raise ValueError(f"stages.{cfg.name}.mode={cfg.mode!r}; it may be one of {MODES}")
    if cfg.total is not None and cfg.total < 1:
        raise ValueError(f"stages.{cfg.name}.total={cfg.total}; it must be at least 1, or null")


def run(cfg: Config) -> Facts:
    from nemo_ext.rows.grouping import GROUP, grouped
    from nemo_ext.rows.passes import map_rows
    from nemo_ext.rows.row import require_rows

    folder, files = Path(cfg.output_dir), row_files(cfg, cfg.input)
    with grouped(files, folder, cfg.workers) as adjacent:
        make = partial(make_selection, cfg.mode, cfg.total, tuple(cfg.sources))
        mapped = map_rows(
            folder, adjacent, make, workers=cfg.workers, group_by=GROUP, shard=cfg.shard, shards=cfg.shards
        )
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    if cfg.sources and cfg.shards == 1 and not mapped.counts["problems"]:
        raise ValueError(
            f"stages.{cfg.name}.sources={list(cfg.sources)}: no row has one of them as its problem_source"
        )
    return mapped.facts(files)


def make_selection(mode: str, total: int | None, sources: tuple[str, ...] = ()) -> "RowFunction":
    from nemo_ext.curation.choosing.code_selection import select
    from nemo_ext.curation.filters.code import has_code
    from nemo_ext.rows.row import written_solution

    def choose(rows: "list[Row]", counts: Counter[str]) -> "Iterable[tuple[Row, str | None]]":
        for _, group in groupby(rows, key=lambda row: (row.get("id"), row.get("problem"))):
            samples = list(group)
            if sources and samples[0].get("problem_source") not in sources:
                counts["problems_of_other_sources"] += 1
                yield from ((row, None) for row in samples)
                continue
            uses_code = [has_code(written_solution(row) or "") for row in samples]
            counts["problems"] += 1
            counts["problems_with_code"] += any(uses_code)
            yield from zip(samples, select(uses_code, mode, total), strict=True)

    return choose
