"""Make problems of what a teacher wrote when it was asked for new ones.

In:  rows of `generate` whose `generation` (or generated_solution) is a problem; and the seed problems, which must not
     come back
Out: {"id": "77ab...", "problem": "There are 3 bags ...", "problem_source": "augmented_gsm8k", "seed_id": "9c1e..."}
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import (
    Row,
    RowWriter,
    content_id,
    input_files,
    input_patterns,
    read_rows,
    require_rows,
    written_solution,
)
from recipes.stage import Stage


@dataclass(kw_only=True)
class Config(Stage):
    input: str = field(default=MISSING, metadata={"path": True})
    seeds: str = field(default=MISSING, metadata={"path": True})
    """The stage with the seed problems."""
    prefix: str = "augmented_"
    """What the new problem_source begins with, before the seed's."""


def run(cfg: Config) -> Facts:
    folder, files, seeds = Path(cfg.output_dir), input_files(cfg.input), input_files(cfg.seeds)
    seen = {_squeezed(row["problem"]) for file in seeds for row in read_rows(file)}
    with RowWriter(folder) as out:
        for file in files:
            for row in read_rows(file):
                problem = (written_solution(row) or "").strip()
                reason = _why_not(row, problem, seen)
                if reason:
                    out.drop(row, reason)
                    continue
                seen.add(_squeezed(problem))
                source = cfg.prefix + row["problem_source"]
                out.keep(
                    {"id": content_id(problem), "problem": problem, "problem_source": source, "seed_id": row["id"]}
                )
        require_rows(out.kept, cfg.name, out.dropped)
    return Facts(
        inputs=[*files, *seeds],
        listed=[*input_patterns(cfg.input), *input_patterns(cfg.seeds)],
        outputs=[folder / "output.jsonl"],
        rows_in=out.total,
        rows_out=out.kept,
        dropped=out.dropped,
    )


def _why_not(row: Row, problem: str, seen: set[str]) -> str | None:
    if not problem:
        return "empty"
    if row.get("finish_reason") == "length":
        return "truncated"
    return "duplicate_problem" if _squeezed(problem) in seen else None


def _squeezed(problem: str) -> str:
    return " ".join(problem.lower().split())
