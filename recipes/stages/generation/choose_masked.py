r"""Choose a masked reference solution for every problem, to be shown to the model that solves it.

In:  problems with `solution`, the reference; and rows of `generate` whose `generation` is an attempt to mask it
Out: every problem, in order, and {"masked_solution": "347 * 128 = M. 512 + M = N. The answer is \\boxed{N}.",
     "masked_by": "hidden"}; masked_by is answer_found or reference where no attempt hid the answer, and not_masked or
     no_reference, without a masked_solution, where there is none: other strategies may still ask about that problem
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from recipes.stage import Stage

if TYPE_CHECKING:
    from nemo_ext.curation.choosing.masking import Attempts


@dataclass(kw_only=True)
class Config(Stage):
    input: str = field(default=MISSING, metadata={"path": True})
    """The stage that wrote the attempts."""
    problems: str = field(default=MISSING, metadata={"path": True})
    """The stage with the problems."""
    fallbacks: list[str] = field(default_factory=lambda: ["answer_found", "reference"])
    """What may be shown where no attempt hides the answer, as published: answer_found, the attempt with the fewest digits of
    those that have the answer; reference, the solution as it is. Empty: such problems get no masked solution."""


def check(cfg: Config) -> None:
    from nemo_ext.curation.choosing.masking import FALLBACKS

    if unknown := sorted(set(cfg.fallbacks) - set(FALLBACKS)):
        raise ValueError(f"stages.{cfg.name}.fallbacks has {unknown}; it may have {FALLBACKS}")


def run(cfg: Config) -> Facts:
    from nemo_ext.rows.row import RowWriter, input_files, input_patterns, read_rows, require_rows

    folder, files, problems = Path(cfg.output_dir), input_files(cfg.input), input_files(cfg.problems)
    tried, attempts = _attempts(cfg, files, problems)
    chosen: Counter[str] = Counter()
    with RowWriter(folder) as out:
        for row in (row for file in problems for row in read_rows(file)):
            masked = tried[row["id"]].chosen(cfg.fallbacks) if row["id"] in tried else None
            if masked is None:
                how = "not_masked" if row["id"] in tried else "no_reference"
                out.keep(row | {"masked_by": how})
            else:
                how = masked[1]
                out.keep(row | {"masked_solution": masked[0], "masked_by": how})
            chosen[how] += 1
        require_rows(out.kept, cfg.name, out.dropped)
    return Facts(
        inputs=[*files, *problems],
        listed=[*input_patterns(cfg.input), *input_patterns(cfg.problems)],
        outputs=[folder / "output.jsonl"],
        rows_in=out.total,
        rows_out=out.kept,
        dropped=out.dropped,
        figures={"attempts": dict(attempts), "masked_by": dict(chosen)},
    )


def _attempts(cfg: Config, files: list[Path], problems: list[Path]) -> "tuple[dict[str, Attempts], Counter[str]]":
    """What is kept of each problem's attempts, and how many attempts were of each kind.

    Raises:
        ValueError: two problems of one id; an attempt at a problem that is not among them.
    """
    from nemo_ext.curation.choosing.masking import Attempts
    from nemo_ext.rows.outside.known_shapes import text_of
    from nemo_ext.rows.row import read_rows

    tried: dict[str, Attempts] = {}
    known: set[str] = set()
    for row in (row for file in problems for row in read_rows(file)):
        if row["id"] in known:
            raise ValueError(
                f"{cfg.problems} has two problems with the id {row['id']!r}: attempts could not be told apart"
            )
        known.add(row["id"])
        if text_of(row.get("solution")) and row.get("expected_answer") is not None:
            tried[row["id"]] = Attempts(row["problem"], text_of(row["solution"]), str(row["expected_answer"]))
    kinds: Counter[str] = Counter()
    for row in (row for file in files for row in read_rows(file)):
        if row["id"] not in known:
            raise ValueError(f"{cfg.input} has an attempt at {row['id']!r}, which {cfg.problems} does not have")
        if row["id"] in tried:
            kinds[tried[row["id"]].add(row["generation"], row["finish_reason"] == "length")] += 1
    return tried, kinds
