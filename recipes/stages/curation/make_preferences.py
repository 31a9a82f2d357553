"""Make pairs of a better and a worse answer to one problem, from samples that were graded or scored.

In:  samples, those of a problem in any order: {"id": "9c1e", "problem": "...", "generation": "...", "sample_index": 3,
     "is_correct": true}, or with `reward` (score_rewards)
Out: a row per pair, {"id": "51f0", "problem_id": "9c1e", "problem": "...", "chosen": "...", "rejected": "...",
     "chosen_reward": 1.0, "rejected_reward": 0.0, "chosen_sample": 3, "rejected_sample": 0}; a sample that is chosen in
     several pairs makes several rows, and the manifest counts those beyond the first as rows_made
Dropped: rejected (it is the other side of a pair), not_paired (the problem has pairs, without this one), no_contrast (all
     samples of the problem are as good as each other), same_solution (a text that an earlier sample of the problem has),
     no_is_correct or no_reward, bad_reward (not a finite number), no_solution
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from nemo_ext.curation.choosing.preference_pairs import MODES, Places, pairs
from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import OF_A_SOLUTION, Row, RowOutcome, content_id, written_solution
from recipes.stage import RowStage, row_files

if TYPE_CHECKING:
    from nemo_ext.rows.passes import RowFunction

BY = ("is_correct", "reward")


@dataclass(kw_only=True)
class Config(RowStage):
    input: str = field(default=MISSING, metadata={"path": True})
    """A grade or score_rewards stage's folder, or samples of your own."""
    by: str = "is_correct"
    """What makes a sample better: is_correct, or a higher reward."""
    pairs: str = "first"
    """Which of a problem's pairs: first (the first right sample and the first wrong one), best_worst (of rewards), all."""
    min_margin: float = 0.0
    """The least difference of the rewards; is_correct counts 1 and 0."""
    pairs_per_problem: int | None = None
    """At most so many of a problem's pairs, spread over its samples. None: all that `pairs` names."""
    seed: int = 0
    """Draws them."""


def check(cfg: Config) -> None:
    for name, choices in (("by", BY), ("pairs", MODES)):
        if getattr(cfg, name) not in choices:
            raise ValueError(f"stages.{cfg.name}.{name}={getattr(cfg, name)!r}; it may be one of {', '.join(choices)}")
    if cfg.pairs_per_problem is not None and cfg.pairs_per_problem < 1:
        raise ValueError(
            f"stages.{cfg.name}.pairs_per_problem={cfg.pairs_per_problem}; it must be at least 1, or null"
        )
    if cfg.min_margin < 0:
        raise ValueError(f"stages.{cfg.name}.min_margin={cfg.min_margin}; it must not be negative")


def run(cfg: Config) -> Facts:
    from nemo_ext.rows.grouping import GROUP, grouped
    from nemo_ext.rows.passes import map_rows
    from nemo_ext.rows.row import require_rows

    folder, files = Path(cfg.output_dir), row_files(cfg, cfg.input)
    with grouped(files, folder, cfg.workers) as adjacent:
        make = partial(pair_maker, cfg)
        mapped = map_rows(
            folder, adjacent, make, workers=cfg.workers, group_by=GROUP, shard=cfg.shard, shards=cfg.shards
        )
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    return mapped.facts(files)


def pair_maker(cfg: Config) -> "RowFunction":
    from nemo_ext.rows.grouping import GROUP
    from nemo_ext.rows.passes import EachGroup

    return EachGroup(GROUP, partial(outcomes, cfg))


def outcomes(cfg: Config, samples: list[Row], counts: Counter[str]) -> Iterator[RowOutcome]:
    """What becomes of the samples of one problem."""
    usable: list[tuple[Row, float]] = []
    seen: set[str] = set()
    for row in samples:
        reason, score = _score(row, cfg.by)
        solution = written_solution(row)
        if reason is None and not solution:
            reason = "no_solution"
        elif reason is None and solution in seen:
            reason = "same_solution"
        if reason is not None:
            yield row, reason
            continue
        seen.add(solution or "")
        usable.append((row, score))
    counts["problems"] += 1
    made = pairs(
        [score for _, score in usable],
        cfg.pairs,
        cfg.min_margin,
        cfg.pairs_per_problem,
        f"{cfg.seed}/{samples[0].get('id')}/{samples[0].get('problem')}",
    )
    counts["problems_with_pairs"] += bool(made)
    yield from ((_pair(usable[better], usable[worse]), None) for better, worse in made)
    yield from _left_over(usable, made)


def _left_over(usable: list[tuple[Row, float]], made: list[Places]) -> Iterator[RowOutcome]:
    """The samples that begin no pair, with why."""
    chosen, rejected = {better for better, _ in made}, {worse for _, worse in made}
    for place, (row, _) in enumerate(usable):
        if place in chosen:
            continue
        yield row, "rejected" if place in rejected else "not_paired" if made else "no_contrast"


def _score(row: Row, by: str) -> tuple[str | None, float]:
    value = row.get(by)
    if value is None:
        return f"no_{by}", 0.0
    if isinstance(value, bool):
        return (None, float(value)) if by == "is_correct" else ("bad_reward", 0.0)
    if by == "is_correct" or not isinstance(value, int | float) or not math.isfinite(value):
        return f"bad_{by}", 0.0
    return None, float(value)


def _pair(better: tuple[Row, float], worse: tuple[Row, float]) -> Row:
    (row, score), (other, other_score) = better, worse
    places = [each.get("sample_index", 0) for each in (row, other)]
    solutions = [written_solution(each) or "" for each in (row, other)]
    about = {key: value for key, value in row.items() if key not in (*OF_A_SOLUTION, "id")}
    return {
        "id": content_id(str(row.get("id")), *solutions),
        "problem_id": row.get("id"),
        **about,
        "chosen": solutions[0],
        "rejected": solutions[1],
        "chosen_reward": score,
        "rejected_reward": other_score,
        "chosen_sample": places[0],
        "rejected_sample": places[1],
    }
