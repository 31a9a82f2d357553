"""Thin the data: fairly, round by round over the problems, at random, or so many rows of so many problems.

In:  rows with `problem`
Out: `num_rows` of them (all, when there are no more), in their order; of the others id and reason in dropped.jsonl,
     {"id": "77ab...", "sample_index": 3, "reason": "not_sampled"}, as the rows themselves are in the input
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import require_rows
from recipes.stage import ReadsRows, row_files

if TYPE_CHECKING:
    from nemo_ext.curation.choosing.row_keys import RowKeys

METHODS = ("fair", "random")
REASONS = ("not_sampled", "over_source_cap", "not_correct")


@dataclass(kw_only=True)
class Config(ReadsRows):
    input: str = field(default=MISSING, metadata={"path": True})
    """An earlier stage's folder, a file or pattern of your own, or toy://solved."""
    num_rows: int | None = None
    """Rows to keep; None: all."""
    method: str = "fair"
    """fair: every problem keeps about as many solutions (OpenMathInstruct-1, section 3). random: uniform."""
    num_problems: int | None = None
    """Take the rows from exactly so many problems, drawn from those with enough solutions; needs num_rows."""
    max_per_source: dict[str, int] = field(default_factory=dict)
    """problem_source -> most rows of it, taken by the same method before num_rows is."""
    only_correct: bool = False
    """Rows whose is_correct is not true are left out first."""
    seed: int = 42
    workers: int | None = field(default=None, metadata={"decides": False})
    """Processes that read and write; the result does not depend on it. None: one per core."""


def check(cfg: Config) -> None:
    if cfg.method not in METHODS:
        raise ValueError(f"stages.{cfg.name}.method={cfg.method!r}; it may be one of {METHODS}")
    if cfg.seed < 0 or (cfg.num_rows is not None and cfg.num_rows < 1):
        raise ValueError(f"stages.{cfg.name}: num_rows={cfg.num_rows} must be 1 or more, seed={cfg.seed} 0 or more")
    if cfg.num_problems is not None and (cfg.num_rows is None or cfg.num_problems < 1):
        raise ValueError(
            f"stages.{cfg.name}.num_problems={cfg.num_problems} with num_rows={cfg.num_rows}; it must be 1 or more, and "
            "num_rows says how many rows of those problems"
        )


def run(cfg: Config) -> Facts:
    import numpy as np

    from nemo_ext.curation.choosing.row_keys import read_keys
    from nemo_ext.rows.select import select_rows

    folder = Path(cfg.output_dir)
    files = row_files(cfg, cfg.input)
    keys = read_keys(files, cfg.workers, correct=cfg.only_correct)
    codes = _codes(cfg, keys)
    mapped = select_rows(folder, files, codes, REASONS, workers=cfg.workers, compact=True, lengths=keys.lengths)
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    kept = keys.sources[codes == 0]
    return mapped.facts(
        files,
        seeds={"sample": cfg.seed},
        figures={
            "problems": len(np.unique(keys.problems[codes == 0])),
            "by_source": {name: int((kept == index).sum()) for index, name in enumerate(keys.source_names)},
        },
    )


def _codes(cfg: Config, keys: "RowKeys") -> Any:
    """[rows] uint8: 0 to keep, else the reason's number."""
    import numpy as np

    from nemo_ext.curation.choosing.downsample import capped, fair_rank, of_problems, random_rows

    codes = np.zeros(len(keys), np.uint8)
    if cfg.only_correct:
        codes[keys.correct != 1] = REASONS.index("not_correct") + 1
    left = np.flatnonzero(codes == 0)
    if cfg.max_per_source:
        rank = fair_rank(keys.problems[left], cfg.seed) if cfg.method == "fair" else _random_rank(len(left), cfg.seed)
        within = capped(keys.sources[left], _caps(cfg, keys), rank)
        codes[left[~within]] = REASONS.index("over_source_cap") + 1
        left = left[within]
    wanted = len(left) if cfg.num_rows is None else cfg.num_rows
    if cfg.num_problems is not None:
        chosen = of_problems(keys.problems[left], cfg.num_problems, wanted, cfg.seed)
    elif cfg.method == "fair":
        chosen = fair_rank(keys.problems[left], cfg.seed) < wanted
    else:
        chosen = random_rows(len(left), wanted, cfg.seed)
    codes[left[~chosen]] = REASONS.index("not_sampled") + 1
    return codes


def _random_rank(num_rows: int, seed: int) -> Any:
    import numpy as np

    return np.random.default_rng(seed).permutation(num_rows)


def _caps(cfg: Config, keys: "RowKeys") -> dict[int, int]:
    unknown = sorted(set(cfg.max_per_source) - set(keys.source_names))
    if unknown:
        raise ValueError(
            f"stages.{cfg.name}.max_per_source: no row is of {', '.join(unknown)}; there are {', '.join(keys.source_names)}"
            ". Where earlier stages dropped them all, their dropped.jsonl says why; else correct the name, or leave it out"
        )
    return {keys.source_names.index(name): cap for name, cap in cfg.max_per_source.items()}
