"""Published scores (published_scores.yaml), and whether one of ours may stand beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from nemo_ext.evaluation.contract import Contract
from nemo_ext.evaluation.stats import wilson

FILE = Path(__file__).with_name("published_scores.yaml")


@dataclass(frozen=True, kw_only=True)
class Published:
    model: str
    benchmark: str
    """A name of conf/benchmark."""
    score: float
    """Percent."""
    problems: int
    source: str
    metric: str = "greedy"
    """greedy, or majority@k."""
    grader: str | None = None
    """symbolic, judge, ...; None: the source does not say."""
    note: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, in percent, as if the score were so many problems solved."""
        low, high = wilson(round(self.score * self.problems / 100), self.problems)
        return 100 * low, 100 * high


@cache
def all_published() -> tuple[Published, ...]:
    """Raises TypeError for an entry that is not one."""
    listed: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())
    return tuple(Published(**entry) for entry in listed)


def published_scores(models: Sequence[str]) -> list[Published]:
    """Published scores of the named models, in the file's order.

    Raises:
        ValueError: a model that has none.
    """
    known = dict.fromkeys(each.model for each in all_published())
    if unknown := [name for name in models if name not in known]:
        raise ValueError(f"no published scores of {unknown[0]!r}; {FILE.name} has {', '.join(known)}")
    return [each for each in all_published() if each.model in models]


def why_not_comparable(published: Published, contract: Contract, scored: dict[str, Any]) -> list[str]:
    """What differs between a published score and ours on a benchmark of the same name; empty: nothing that is known."""
    reasons = []
    problems = scored.get("problems", scored["total"])
    if problems != published.problems:
        reasons.append(f"{problems:,} problems here, {published.problems:,} there")
    metric = (
        "greedy" if contract.num_samples == 1 and not contract.temperature else f"pass@1 of {contract.num_samples}"
    )
    if contract.search != "none":
        metric = contract.search
    if metric != published.metric:
        reasons.append(f"{metric} here, {published.metric} there")
    if published.grader is None:
        reasons.append("its grader is not known")
    elif published.grader != contract.grader:
        reasons.append(f"graded by {contract.grader} here, by {published.grader} there")
    return reasons
