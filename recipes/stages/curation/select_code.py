"""Choose between a problem's solutions with code and those in words.

In:  rows with a problem and generated_solution (or generation), those of a problem in any order
Out: the rows that stay, those of a problem together; the others as `has_code` or `has_no_code`
"""

from collections import Counter
from collections.abc import Callable, Iterable
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
    from nemo_ext.rows.row_input import RowFiles


@dataclass(kw_only=True)
class Config(RowStage):
    input: str = field(default=MISSING, metadata={"path": True})
    mode: str = "any_code"
    """any_code, majority_code, majority_text, all or none, as nemo_ext/curation/choosing/code_selection.py has them."""
    sources: list[str] = field(default_factory=list)
    """The values of problem_source whose solutions are chosen among; those of others all stay. Empty: every one.
    OpenMathInstruct-1 chose among MATH's alone."""
    drawn: list[str] = field(default_factory=list, metadata={"path": True})
    """Rows with every sample that was drawn, before any filter: the folder of generate, or files. The modes that ask for a
    majority count a problem's samples there, as OpenMathInstruct-1 does, and need it; others do without."""


def check(cfg: Config) -> None:
    from nemo_ext.curation.choosing.code_selection import COUNTING, MODES

    if cfg.mode not in MODES:
        raise ValueError(f"stages.{cfg.name}.mode={cfg.mode!r}; it may be one of {MODES}")
    if cfg.mode in COUNTING and not cfg.drawn:
        raise ValueError(
            f"stages.{cfg.name}.mode={cfg.mode}: a majority is one of all samples of a problem that were drawn, and how "
            f"many these were cannot be told from rows that filters have left. Set stages.{cfg.name}.drawn=[<the folder "
            f"of generate>], or to what stages.{cfg.name}.input names where nothing was filtered"
        )


def run(cfg: Config) -> Facts:
    from nemo_ext.curation.choosing.code_selection import COUNTING
    from nemo_ext.records.files import sha256_json
    from nemo_ext.rows.grouping import GROUP, grouped
    from nemo_ext.rows.passes import map_rows
    from nemo_ext.rows.row import require_rows

    folder, files = Path(cfg.output_dir), row_files(cfg, cfg.input)
    counted = row_files(cfg, *cfg.drawn) if cfg.mode in COUNTING else None
    totals = None if counted is None else samples_drawn(counted, cfg.workers)
    with grouped(files, folder, cfg.workers) as adjacent:
        make = partial(make_selection, cfg.mode, totals, tuple(cfg.sources), f"stages.{cfg.name}.drawn")
        rests_on = "" if totals is None else sha256_json(sorted(totals.items()))
        mapped = map_rows(
            folder, adjacent, make, workers=cfg.workers, group_by=GROUP, shard=cfg.shard, shards=cfg.shards,
            rests_on=rests_on,
        )  # fmt: skip
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    if cfg.sources and cfg.shards == 1 and not mapped.counts["problems"]:
        raise ValueError(
            f"stages.{cfg.name}.sources={list(cfg.sources)}: no row has one of them as its problem_source"
        )
    return mapped.facts(files if counted is None else row_files(cfg, cfg.input, *cfg.drawn))


Problem = tuple[str | None, str | None]
"""Id and text: what samples of a problem share."""


def problem_of(row: "Row") -> Problem:
    return row.get("id"), row.get("problem")


def samples_drawn(files: "RowFiles", workers: int | None) -> Counter[Problem]:
    """How many rows there are of each problem."""
    from nemo_ext.rows.passes import scan_rows

    totals: Counter[Problem] = Counter()
    for found in scan_rows(files, problem_counter, workers=workers):
        totals.update(found)
    return totals


def problem_counter() -> "Callable[[list[Row]], Counter[Problem]]":
    return lambda rows: Counter(map(problem_of, rows))


def make_selection(
    mode: str, totals: Counter[Problem] | None, sources: tuple[str, ...] = (), place: str = "drawn"
) -> "RowFunction":
    """`totals`: samples drawn of each problem; `place`: the key that named them."""
    from nemo_ext.curation.choosing.code_selection import select
    from nemo_ext.curation.filters.code import has_code
    from nemo_ext.rows.row import written_solution

    def choose(rows: "list[Row]", counts: Counter[str]) -> "Iterable[tuple[Row, str | None]]":
        for problem, group in groupby(rows, key=problem_of):
            samples = list(group)
            if sources and samples[0].get("problem_source") not in sources:
                counts["problems_of_other_sources"] += 1
                yield from ((row, None) for row in samples)
                continue
            uses_code = [has_code(written_solution(row) or "") for row in samples]
            counts["problems"] += 1
            counts["problems_with_code"] += any(uses_code)
            total = len(samples) if totals is None else totals[problem]
            if total < len(samples):
                raise ValueError(
                    f"{place}: it has {total} samples of the problem {problem[0]!r}, of which {len(samples)} have come to "
                    "this stage. Name the rows that they were filtered from, all of them"
                )
            yield from zip(samples, select(uses_code, mode, total), strict=True)

    return choose
