"""Give new problems an answer: what most of their solutions say.

In:  rows with `generation` (or only `predicted_answer`), the samples of a problem in any order
Out: the row and {"predicted_answer": "19", "expected_answer": "19", "majority_votes": 6, "total_votes": 8,
     "vote_share": 0.75, "is_correct": true}; a problem none of whose solutions has an answer gets expected_answer null.
     Below min_votes or min_share a problem's rows are dropped: few_votes, low_vote_share.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from recipes.stage import RowStage, row_files

if TYPE_CHECKING:
    from nemo_ext.aggregation.vote import Vote
    from nemo_ext.rows.passes import RowFunction
    from nemo_ext.rows.row import Row

MODES = ("exact", "equivalent")


@dataclass(kw_only=True)
class Config(RowStage):
    input: str = field(default=MISSING, metadata={"path": True})
    mode: str = "exact"
    """exact: answers are compared as strings, as the paper did. equivalent: 1/2 and 0.5 vote together."""
    extractor: str = "boxed"
    """boxed, default, the_answer_is, hash or letter."""
    min_votes: int = 0
    """Problems whose answer has fewer are dropped. 0: none."""
    min_share: float = 0.0
    """The same by vote_share: the part of all solutions, or of all weight, that agrees. 0: none."""
    weight_by: str | None = None
    """A key with each solution's weight, such as a reward model's score; rows without one there are dropped: bad_weight."""


def check(cfg: Config) -> None:
    from nemo_ext.grading.extract import EXTRACTORS

    if cfg.mode not in MODES:
        raise ValueError(f"stages.{cfg.name}.mode={cfg.mode!r}; it may be one of {MODES}")
    if cfg.extractor not in EXTRACTORS:
        raise ValueError(f"stages.{cfg.name}.extractor={cfg.extractor!r}; it may be one of {', '.join(EXTRACTORS)}")
    if cfg.min_votes < 0 or not 0 <= cfg.min_share <= 1:
        got = f"min_votes={cfg.min_votes}, min_share={cfg.min_share}"
        raise ValueError(f"stages.{cfg.name}: {got}; min_votes is a number of solutions, min_share is from 0 to 1")


def run(cfg: Config) -> Facts:
    from nemo_ext.grading.equal import grader_version
    from nemo_ext.rows.grouping import GROUP, grouped
    from nemo_ext.rows.passes import map_rows
    from nemo_ext.rows.row import require_rows

    folder, files = Path(cfg.output_dir), row_files(cfg, cfg.input)
    make = partial(make_voter, cfg.mode, cfg.extractor, cfg.weight_by, cfg.min_votes, cfg.min_share)
    with grouped(files, folder, cfg.workers) as ordered:
        mapped = map_rows(
            folder,
            ordered,
            make,
            workers=cfg.workers,
            group_by=GROUP,
            shard=cfg.shard,
            shards=cfg.shards,
            rests_on=grader_version(),
        )
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    return mapped.facts(files)


def make_voter(mode: str, extractor: str, weight_by: str | None, min_votes: int, min_share: float) -> "RowFunction":
    from nemo_ext.aggregation.vote import vote
    from nemo_ext.grading.answers import predicted_answer
    from nemo_ext.rows.grouping import GROUP

    def of_problem(rows: "list[Row]", counts: Counter[str]) -> "Iterator[tuple[Row, str | None]]":
        found = [predicted_answer(row, extractor) for row in rows]
        weights = [1.0 if weight_by is None else weight_of(row.get(weight_by)) for row in rows]
        voters = [i for i in range(len(rows)) if found[i] is not None and weights[i] is not None]
        result = vote(
            [found[i].text for i in voters],  # type: ignore[union-attr]
            "exact" if mode == "exact" else "equivalent",
            weights=None if weight_by is None else [weights[i] for i in voters],  # type: ignore[misc]
        )
        counts["answered" if result.answer is not None else "unanswered"] += bool(voters)
        reason, shared = too_few(result, min_votes, min_share), columns(result)
        for row, own, weight in zip(rows, found, weights, strict=True):
            if own is None or weight is None:
                yield row, "no_generation" if own is None else "bad_weight"
            else:
                judged = {"predicted_answer": own.text, **shared, "is_correct": own.text in result.spellings}
                yield row | judged, reason

    def apply(rows: "list[Row]", counts: Counter[str]) -> "Iterator[tuple[Row, str | None]]":
        for _, problem in groupby(rows, key=lambda row: [row.get(key) for key in GROUP]):
            yield from of_problem(list(problem), counts)

    return apply


def columns(result: "Vote") -> dict[str, Any]:
    """What all rows of a problem get."""
    return {
        "expected_answer": result.answer,
        "majority_votes": result.votes,
        "total_votes": result.total,
        "vote_share": round(result.share, 6),
    }


def weight_of(value: Any) -> float | None:
    """A weight; None where the value is not a finite number from 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def too_few(result: "Vote", min_votes: int, min_share: float) -> str | None:
    if result.votes < min_votes:
        return "few_votes"
    return "low_vote_share" if result.share < min_share else None
