"""Compare every solution's answer with the known one.

In:  rows with `generation` (or only `predicted_answer`) and `expected_answer`
Out: the row and {"predicted_answer": "19", "is_correct": true, "verdict": "equal", "grade_method": "exact"}; with
     also=[integer] besides {"graded_by": {"integer": true}}. The verdict is equal, different or undecided, which counts as
     not correct. Rows without a known answer or without a solution are dropped: no_expected_answer, no_generation; so is
     a whole number that was a float from 2^53 on, whose last digits are lost: inexact_answer.
"""

import atexit
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from recipes.stage import RowStage, row_files

if TYPE_CHECKING:
    from nemo_ext.grading.grader import Grader
    from nemo_ext.grading.verdict import Verdict
    from nemo_ext.rows.passes import RowFunction
    from nemo_ext.rows.row import Row


@dataclass(kw_only=True)
class Config(RowStage):
    input: str = field(default=MISSING, metadata={"path": True})
    extractor: str = "boxed"
    """boxed, default (a box, else "The answer is", else ####), the_answer_is, hash or letter: where the answer is."""
    grader: str = "default"
    """default, math_verify, hendrycks, integer or integer_mod_<n>: decides is_correct."""
    also: list[str] = field(default_factory=list)
    """Other graders, to compare with: `graded_by` holds what each says."""
    timeout_s: float = 1.0
    """CPU seconds a pair that needs computer algebra may take; then it is undecided."""


def check(cfg: Config) -> None:
    from nemo_ext.grading.extract import EXTRACTORS
    from nemo_ext.grading.graders import rule_of

    for name in (cfg.grader, *cfg.also):
        try:
            rule_of(name)
        except ValueError as error:
            raise ValueError(f"stages.{cfg.name}.{error}") from error
    if cfg.extractor not in EXTRACTORS:
        raise ValueError(f"stages.{cfg.name}.extractor={cfg.extractor!r}; it may be one of {', '.join(EXTRACTORS)}")
    if cfg.timeout_s <= 0:
        raise ValueError(f"stages.{cfg.name}.timeout_s={cfg.timeout_s}; it must be above 0")


def run(cfg: Config) -> Facts:
    from nemo_ext.grading.equal import grader_version
    from nemo_ext.rows.passes import map_rows
    from nemo_ext.rows.row import require_rows

    folder, files = Path(cfg.output_dir), row_files(cfg, cfg.input)
    make = partial(make_grader, cfg.extractor, (cfg.grader, *cfg.also), cfg.timeout_s)
    mapped = map_rows(
        folder,
        files,
        make,
        workers=cfg.workers,
        shard=cfg.shard,
        shards=cfg.shards,
        rests_on=grader_version(),
    )
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    figures = {name: mapped.counts.get(name, 0) for name in ("correct", "different", "undecided", "no_answer")}
    return mapped.facts(files, figures=figures | mapped.figures | {"grader": grader_version()})


def make_grader(extractor: str, names: tuple[str, ...], timeout_s: float) -> "RowFunction":
    from nemo_ext.grading.grader import Grader

    graders = {name: Grader(timeout_s=timeout_s, name=name) for name in names}
    for grader in graders.values():
        atexit.register(grader.close)
    return partial(_grade, extractor, graders)


def _grade(
    extractor: str, graders: "dict[str, Grader]", rows: "list[Row]", counts: Counter[str]
) -> "Iterator[tuple[Row, str | None]]":
    from nemo_ext.grading.answers import answer_of, predicted_answer, reason_not_graded

    known = [answer_of(row.get("expected_answer")) for row in rows]
    found = [predicted_answer(row, extractor) for row in rows]
    pairs = [(own.text, answer) for own, answer in zip(found, known, strict=True) if own and answer is not None]
    verdicts = zip(*(grader.grade(pairs) for grader in graders.values()), strict=True)
    for row, answer, own in zip(rows, known, found, strict=True):
        if answer is None or own is None:
            yield row, reason_not_graded(row, answer, own)
        else:
            graded = dict(zip(graders, next(verdicts), strict=True))
            yield row | {"predicted_answer": own.text, "expected_answer": answer} | _columns(graded, counts), None


def _columns(verdicts: "dict[str, Verdict]", counts: Counter[str]) -> "Row":
    (_, first), *others = verdicts.items()
    counts["correct" if first else first.equality] += 1
    counts["no_answer"] += first.method == "no_answer"
    columns: dict[str, Any] = {"is_correct": bool(first), "verdict": str(first.equality), "grade_method": first.method}
    for name, verdict in others:
        counts[f"{name}_{'agrees' if verdict.equal == first.equal else 'disagrees'}"] += 1
    return columns | ({"graded_by": {name: verdict.equal for name, verdict in verdicts.items()}} if others else {})
