"""Keep the first of rows that say the same.

In:  rows with a problem and, most often, a solution
Out: the rows that stay, as they were; the others as `duplicate` (the same problem with the same solution, white space
     apart) or, with near=true, `near_duplicate` (a problem in nearly the words of an earlier one, as
     nemo_ext/curation/duplicates/near.py has it), with {"duplicate_of": "<id of the row that stays>",
     "duplicate_of_sample": 3} and, of near duplicates, "similarity"
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from recipes.stage import RowStage, row_files

if TYPE_CHECKING:
    from nemo_ext.curation.duplicates.exact import Array, Names
    from nemo_ext.curation.duplicates.near import Near

REASONS = ("duplicate", "near_duplicate")


@dataclass(kw_only=True)
class Config(RowStage):
    input: str = field(default=MISSING, metadata={"path": True})
    by: list[str] = field(default_factory=lambda: ["problem", "generated_solution"])
    """Rows that agree on these are duplicates. A row without generated_solution has its generation, or none. Problems are
    the same where they are asked under the same system turn and with the same tools."""
    near: bool = False
    """Drop problems too that nearly repeat an earlier one, with all their rows."""
    threshold: float = 0.8
    """The share of their runs of five characters that two problems must have in common, in [0.5, 1]."""


def check(cfg: Config) -> None:
    if not cfg.by:
        raise ValueError(f"stages.{cfg.name}.by is empty; name the columns that duplicates agree on")
    if not 0.5 <= cfg.threshold <= 1:
        raise ValueError(f"stages.{cfg.name}.threshold={cfg.threshold}; it must be in [0.5, 1]")
    if cfg.shards > 1:
        raise ValueError(
            f"stages.{cfg.name}.shards={cfg.shards}; rows are compared with all others, so it can only be 1"
        )


def run(cfg: Config) -> Facts:
    import numpy as np

    from nemo_ext.curation.duplicates.exact import Names, first_equal, read_keys
    from nemo_ext.curation.duplicates.near import near_duplicates
    from nemo_ext.rows.select import select_rows

    folder, files = Path(cfg.output_dir), row_files(cfg, cfg.input)
    keyed = read_keys(files, cfg.by, cfg.workers)
    first = first_equal(keyed.keys)
    codes = (first != np.arange(len(first))).astype(np.uint8)
    near = near_duplicates(files, cfg.threshold, cfg.workers) if cfg.near else None
    if near is not None:
        codes[near.first_row >= 0] = 2
    notes = _Notes(Names(keyed.names), first, near)
    lengths = [len(batch) for batch in keyed.names]
    mapped = select_rows(folder, files, codes, REASONS, workers=cfg.workers, notes=notes, lengths=lengths)
    return mapped.facts(
        files,
        figures={"problems_compared": near.compared} if near is not None else {},
    )


class _Notes:
    """What is written beside a dropped row."""

    def __init__(self, names: "Names", first: "Array", near: "Near | None") -> None:
        self.names, self.first, self.near = names, first, near

    def __call__(self, row: int) -> dict[str, Any]:
        if self.near is None or self.near.first_row[row] < 0:
            return self.names.duplicate_of(int(self.first[row]))
        similarity = self.near.similarity[int(self.near.problem_row[row])]
        return self.names.duplicate_of(int(self.near.first_row[row])) | {"similarity": similarity}
