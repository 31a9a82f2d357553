"""Edit solutions and drop the rows not worth training on, step by step in the recipe's order.

In:  rows with problem and generation (or generated_solution), and the columns their steps read
Out: the row and {"generated_solution": "3 * 4 = 12. 7 + 12 = 19. The answer is \\boxed{19}."}; the rest with its reason
With preview=1000 nothing is filtered: preview.txt says what each step would drop of the first 1,000 rows, with examples.
Duplicates are the business of the stage deduplicate.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.models.model import Model
from nemo_ext.records.manifest import Facts
from recipes.stage import RowStage, row_files

if TYPE_CHECKING:
    from nemo_ext.curation.filter_chain import Step
    from nemo_ext.curation.filters.context import Context
    from nemo_ext.rows.passes import RowFunction
    from nemo_ext.rows.row import Row
    from nemo_ext.rows.row_input import RowFiles

LOOKED_AT = 1000  # rows, for the columns that steps need


@dataclass(kw_only=True)
class FilterStep:
    name: str = MISSING
    """A filter or edit of nemo_ext/curation/filter_chain.py."""
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Config(RowStage):
    input: str = field(default=MISSING, metadata={"path": True})
    steps: list[FilterStep] = field(default_factory=list)
    model: Model = MISSING
    """The model whose tokenizer counts lengths; it is not loaded where no step has a limit in tokens."""
    preview: int = 0
    """Try every step on so many rows and write what it would drop, instead of the output. 0: filter."""


def check(cfg: Config) -> None:
    try:
        steps_of(cfg)
    except ValueError as error:
        raise ValueError(f"stages.{cfg.name}.steps: {error}") from error
    if not cfg.steps:
        raise ValueError(f"stages.{cfg.name}.steps is empty: list the filters and edits by name")
    if cfg.preview < 0:
        raise ValueError(f"stages.{cfg.name}.preview={cfg.preview}; it must be 0 (filter) or a number of rows")


def steps_of(cfg: Config) -> "list[Step]":
    from nemo_ext.curation.filter_chain import Step

    return [Step(step.name, step.params) for step in cfg.steps]


def reads_model(cfg: Config) -> bool:
    return any(counts_tokens(step) for step in steps_of(cfg))


def run(cfg: Config) -> Facts:
    from nemo_ext.curation.filter_chain import require_columns
    from nemo_ext.curation.token_limits import serialised_tokenizer
    from nemo_ext.models.model_files import text_files
    from nemo_ext.records.files import sha256_json
    from nemo_ext.rows.passes import map_rows
    from nemo_ext.rows.row import require_rows

    folder, files = Path(cfg.output_dir), row_files(cfg, cfg.input)
    steps = steps_of(cfg)
    require_columns(first_rows(files, LOOKED_AT), steps)
    counts = reads_model(cfg)
    tokenizer, tokenizer_files = (serialised_tokenizer(cfg.model), text_files(cfg.model)) if counts else (None, [])
    if cfg.preview:
        return look(cfg, files, steps, context(tokenizer))
    make = partial(make_filter, tuple(steps), tokenizer)
    mapped = map_rows(
        folder, files, make, workers=cfg.workers, shard=cfg.shard, shards=cfg.shards, rests_on=sha256_json(tokenizer)
    )
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    return mapped.facts(files, model_files=tokenizer_files)


def first_rows(files: "RowFiles", num: int) -> "list[Row]":
    from nemo_ext.rows.passes import scan_rows

    return list(islice(chain.from_iterable(scan_rows(files, lambda: list, workers=1)), num))


def counts_tokens(step: "Step") -> bool:
    from inspect import signature

    limits = {name: p.default for name, p in signature(step.function).parameters.items() if name.endswith("_tokens")}
    return any(
        value is not None for value in (limits | {k: v for k, v in step.params.items() if k in limits}).values()
    )


def context(tokenizer: str | None) -> "Context":
    from nemo_ext.curation.filters.context import Context
    from nemo_ext.curation.token_limits import Bounded

    return Context() if tokenizer is None else Context(Bounded(tokenizer))


def make_filter(steps: "tuple[Step, ...]", tokenizer: str | None) -> "RowFunction":
    from nemo_ext.curation.filter_chain import Chain
    from nemo_ext.curation.token_limits import Bounded

    here = context(tokenizer)
    apply = Chain(steps, here)

    def filter_rows(rows: "list[Row]", counts: Counter[str]) -> "Iterable[tuple[Row, str | None]]":
        outcomes = [apply(row) for row in rows]
        if isinstance(here.tokens, Bounded):
            counts["texts_tokenised"] += here.tokens.num_counted
            here.tokens.num_counted = 0
        return outcomes

    return filter_rows


def look(cfg: Config, files: "RowFiles", steps: "list[Step]", here: "Context") -> Facts:
    from nemo_ext.curation.preview import preview, render
    from nemo_ext.records.files import write_json_atomic, write_text_atomic

    folder = Path(cfg.output_dir)
    result = preview(first_rows(files, cfg.preview), steps, here)
    text = render(result, Path(cfg.input).name)
    write_text_atomic(folder / "preview.txt", text + "\n")
    write_json_atomic(folder / "preview.json", result.as_json())
    return Facts(
        **files.facts,
        outputs=[folder / "preview.txt", folder / "preview.json"],
        figures={"preview": "\n\n" + text + "\n"},
    )
