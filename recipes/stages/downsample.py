"""Thin the data: fairly, round by round over the problems, or at random.

In:  rows with `problem`
Out: `num_rows` of them (all, when there are no more), in their order; the rest as `not_sampled`
"""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.manifest import Facts
from nemo_ext.rows import RowWriter, content_id, input_files, read_rows, require_rows
from recipes.stage import Stage

METHODS = ("fair", "random")


@dataclass(kw_only=True)
class Config(Stage):
    input: str = MISSING
    num_rows: int | None = None
    """Rows to keep; None: all."""
    method: str = "fair"
    """fair: every problem keeps about as many solutions (OpenMathInstruct-1, section 3). random: uniform."""
    seed: int = 42


def check(cfg: Config) -> None:
    if cfg.method not in METHODS:
        raise ValueError(f"stages.{cfg.name}.method={cfg.method!r}; it may be one of {METHODS}")


def run(cfg: Config) -> Facts:
    from nemo_ext.curation.downsample import fair, random_sample

    folder, files = Path(cfg.output_dir), input_files(cfg.input)
    problems = [content_id(row["problem"]) for file in files for row in read_rows(file)]
    wanted = len(problems) if cfg.num_rows is None else cfg.num_rows
    chosen = set(
        fair(problems, wanted, cfg.seed) if cfg.method == "fair" else random_sample(len(problems), wanted, cfg.seed)
    )
    with RowWriter(folder) as out:
        for index, row in enumerate(row for file in files for row in read_rows(file)):
            if index in chosen:
                out.keep(row)
            else:
                out.drop(row, "not_sampled")
        require_rows(out.kept, cfg.name, out.dropped)
    return Facts(
        inputs=files,
        outputs=[folder / "output.jsonl"],
        rows_in=out.total,
        rows_out=out.kept,
        dropped=out.dropped,
        seeds={"sample": cfg.seed},
        figures={"problems": len({problems[index] for index in chosen})},
    )
