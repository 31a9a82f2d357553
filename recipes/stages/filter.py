"""Edit solutions and drop the rows not worth training on, step by step in the recipe's order.

In:  rows with problem, generation, predicted_answer, is_correct
Out: the row and {"generated_solution": "3 * 4 = 12. 7 + 12 = 19. The answer is \\boxed{19}."}; the rest with its reason
Exact duplicates (problem and solution) are dropped at the end, as `duplicate`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from nemo_ext.manifest import Facts
from nemo_ext.model import Model
from nemo_ext.rows import RowWriter, input_files, read_rows, require_rows
from recipes.stage import Stage


@dataclass(kw_only=True)
class FilterStep:
    name: str = MISSING
    """A filter or edit of nemo_ext/curation/filters.py."""
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Config(Stage):
    input: str = MISSING
    steps: list[FilterStep] = field(default_factory=list)
    model: Model = MISSING
    """Whose tokenizer counts lengths."""


def check(cfg: Config) -> None:
    from nemo_ext.curation.filters import Step

    for step in cfg.steps:
        try:
            Step(step.name, step.params)
        except ValueError as error:
            raise ValueError(f"stages.{cfg.name}.steps: {error}") from error


def run(cfg: Config) -> Facts:
    from nemo_ext.chat import ChatTokenizer
    from nemo_ext.curation.dedup import Deduper
    from nemo_ext.curation.filters import Context, Step, apply
    from nemo_ext.progress import Progress

    folder, files = Path(cfg.output_dir), input_files(cfg.input)
    steps = [Step(step.name, step.params) for step in cfg.steps]
    context = Context(count_tokens=ChatTokenizer(cfg.model).count)
    duplicates, progress = Deduper(), Progress(folder, "rows")
    with RowWriter(folder) as out:
        for file in files:
            for row in read_rows(file):
                edited, reason = apply(row, steps, context)
                if reason is None and duplicates.seen(edited):
                    reason = "duplicate"
                if reason is None:
                    out.keep(edited)
                else:
                    out.drop(edited, reason)
                progress.update(out.total)
        require_rows(out.kept, cfg.name, out.dropped)
    return Facts(
        inputs=files,
        outputs=[folder / "output.jsonl"],
        rows_in=out.total,
        rows_out=out.kept,
        dropped=out.dropped,
    )
