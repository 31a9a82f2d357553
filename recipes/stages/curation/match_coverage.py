"""Cut two sets of solutions to as many of each problem as both have, so that only who wrote them, or how, differs.

In:  rows of two pools
Out: the chosen rows of one of them (`keep`); a stage has a variant for each pool
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import require_rows
from recipes.stage import ReadsRows, row_files

POOLS = ("first", "second")
REASONS = ("not_matched", "not_correct")


@dataclass(kw_only=True)
class Config(ReadsRows):
    first: str = field(default=MISSING, metadata={"path": True})
    second: str = field(default=MISSING, metadata={"path": True})
    keep: str = "first"
    """first or second: whose rows are written."""
    num_rows: int | None = None
    """Rows of each pool, chosen fairly over the problems both have; None: as many as match."""
    only_correct: bool = True
    """Rows whose is_correct is not true are not candidates."""
    seed: int = 42
    workers: int | None = field(default=None, metadata={"decides": False})


def check(cfg: Config) -> None:
    if cfg.keep not in POOLS:
        raise ValueError(f"stages.{cfg.name}.keep={cfg.keep!r}; it may be one of {POOLS}")
    if cfg.seed < 0 or (cfg.num_rows is not None and cfg.num_rows < 1):
        raise ValueError(f"stages.{cfg.name}: num_rows={cfg.num_rows} must be 1 or more, seed={cfg.seed} 0 or more")


def run(cfg: Config) -> Facts:
    import numpy as np

    from nemo_ext.curation.choosing.downsample import matching
    from nemo_ext.curation.choosing.row_keys import read_keys
    from nemo_ext.rows.select import select_rows
    from nemo_ext.rows.sources import data_files

    folder = Path(cfg.output_dir)
    both = row_files(cfg, cfg.first, cfg.second)
    num_first = len(data_files(cfg.first, cfg.split, folder))
    files = {"first": both[:num_first], "second": both[num_first:]}
    keys = {name: read_keys(paths, cfg.workers, correct=cfg.only_correct) for name, paths in files.items()}
    allowed = {
        name: np.flatnonzero(each.correct == 1) if cfg.only_correct else np.arange(len(each))
        for name, each in keys.items()
    }
    for name in POOLS:
        if not len(allowed[name]):
            raise ValueError(
                f"stages.{cfg.name}.{name}={getattr(cfg, name)}: of {len(keys[name])} rows none has is_correct: true. "
                "Grade them first, or set only_correct=false"
            )
    first, second = (keys[name].problems[allowed[name]] for name in POOLS)
    chosen = matching(first, second, cfg.num_rows, cfg.seed)
    own = keys[cfg.keep]
    codes = np.full(len(own), REASONS.index("not_correct") + 1, np.uint8)
    codes[allowed[cfg.keep]] = np.where(chosen[POOLS.index(cfg.keep)], 0, REASONS.index("not_matched") + 1)
    mapped = select_rows(
        folder, files[cfg.keep], codes, REASONS, workers=cfg.workers, compact=True, lengths=own.lengths
    )
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    return mapped.facts(
        both,
        seeds={"sample": cfg.seed},
        figures={"problems": len(np.unique(own.problems[codes == 0]))},
    )
