"""Scores of a benchmark from its counted problems, as scores.json holds them.

benchmark_scores(problems)["metrics"]["majority@64"]  ->  {"value": 0.81, "low": 0.78, "high": 0.84}
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any

from nemo_ext.evaluation.problems import BREAKDOWNS, Problem, majority_sizes, powers_of_two
from nemo_ext.evaluation.stats import bootstrap, pass_at_k_by_correct, spread, wilson

MAX_GROUPS = 100  # of a breakdown: more values than this are a name of each problem, not a kind of problem


def by_benchmark(problems: Iterable[Problem]) -> dict[str, list[Problem]]:
    """The problems of each benchmark, in order of appearance."""
    found: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        found[problem.benchmark].append(problem)
    return dict(found)


def scores(problems: Iterable[Problem]) -> dict[str, dict[str, Any]]:
    """Benchmark -> `benchmark_scores` of its problems."""
    return {name: benchmark_scores(group) for name, group in by_benchmark(problems).items()}


def benchmark_scores(problems: Sequence[Problem]) -> dict[str, Any]:
    """Counts, shares in 0..1 and 95 % intervals.

    An answer that is missing or that no grader could compare counts as wrong. `total` and `correct` count samples;
    `accuracy` is the mean over problems of the share of correct samples. Raises ValueError without problems.
    """
    if not problems:
        raise ValueError("benchmark_scores: needs at least one problem")
    samples = sum(problem.num_samples for problem in problems)
    no_answer = sum(problem.no_answer for problem in problems)
    truncated = sum(problem.truncated for problem in problems)
    found: dict[str, Any] = {
        **_accuracy(problems),
        "total": samples,
        "no_answer": no_answer,
        "no_answer_rate": no_answer / samples,
        "truncated": truncated,
        "truncation_rate": truncated / samples,
        "metrics": metrics(problems),
    }
    if (num_samples := min(problem.num_samples for problem in problems)) > 1:
        by_sample = [sum(problem.correct[i] for problem in problems) / len(problems) for i in range(num_samples)]
        found["seeds"] = spread(by_sample)
    patterns = verdict_patterns(problems)
    if len({grader for pattern in patterns for grader, _ in pattern}) > 1:
        found["verdicts"] = verdict_shares(patterns)
        found["agreement"] = agreement(problems)
    return found | {"by": breakdowns(problems)}


def _accuracy(problems: Sequence[Problem]) -> dict[str, Any]:
    values = [problem.accuracy for problem in problems]
    low, high = interval(values)
    return {
        "problems": len(problems),
        "samples": sum(problem.num_samples for problem in problems),
        "correct": sum(sum(problem.correct) for problem in problems),
        "accuracy": sum(values) / len(values),
        "low": low,
        "high": high,
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of one value per problem: Wilson's where each is 0 or 1, else a bootstrap over problems.

    A bootstrap of problems that are all alike would have no width at all.
    """
    if all(value in (0, 1) for value in values):
        return wilson(int(sum(values)), len(values))
    return bootstrap(values)


def metrics(problems: Sequence[Problem]) -> dict[str, dict[str, float]]:
    """pass@k (unbiased) for k = 1, 2, 4, ... and majority@k for k = 4, 8, ..., up to the fewest samples a problem has."""
    fewest = min(problem.num_samples for problem in problems)
    found = {f"pass@{k}": [_pass_at(problem, k) for problem in problems] for k in powers_of_two(fewest)}
    for k in majority_sizes(fewest):
        if all(k in problem.majority for problem in problems):
            found[f"majority@{k}"] = [problem.majority[k] for problem in problems]
    return {name: _estimate(values) for name, values in found.items()}


def _estimate(values: Sequence[float]) -> dict[str, float]:
    low, high = interval(values)
    return {"value": sum(values) / len(values), "low": low, "high": high}


_TABLES: dict[tuple[int, int], list[float]] = {}


def _pass_at(problem: Problem, k: int) -> float:
    key = (problem.num_samples, k)
    if key not in _TABLES:
        _TABLES[key] = pass_at_k_by_correct(*key).tolist()
    return _TABLES[key][sum(problem.correct)]


def verdict_patterns(problems: Iterable[Problem]) -> Counter[tuple[tuple[str, bool | None], ...]]:
    found: Counter[tuple[tuple[str, bool | None], ...]] = Counter()
    for problem in problems:
        found.update(problem.verdicts)
    return found


def verdict_shares(patterns: Counter[tuple[tuple[str, bool | None], ...]]) -> dict[str, float]:
    """Share of samples that each grader calls correct, that all do (`both`), and that any does (`either`)."""
    total = patterns.total()
    graders = list(dict.fromkeys(grader for pattern in patterns for grader, _ in pattern))

    def share(says: Callable[[list[bool]], bool]) -> float:
        return (
            sum(n for pattern, n in patterns.items() if says([dict(pattern).get(g) is True for g in graders])) / total
        )

    each = {grader: share(lambda said, i=i: said[i]) for i, grader in enumerate(graders)}  # type: ignore[misc]
    return each | {"both": share(all), "either": share(any)}


def agreement(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """For each pair of graders, the samples that only the first, only the second, and both call correct, and by how
    many points their scores differ (first - second)."""
    patterns = verdict_patterns(problems)
    graders = list(dict.fromkeys(grader for pattern in patterns for grader, _ in pattern))
    total, found = patterns.total(), []
    for first, second in combinations(graders, 2):
        said = Counter[tuple[bool, bool]]()
        for pattern, n in patterns.items():
            verdicts = dict(pattern)
            said[verdicts.get(first) is True, verdicts.get(second) is True] += n
        counts = {"only_first": said[True, False], "only_second": said[False, True], "both": said[True, True]}
        points = 100 * (counts["only_first"] - counts["only_second"]) / total
        found.append({"first": first, "second": second, "samples": total, **counts, "points": points})
    return found


def breakdowns(problems: Sequence[Problem]) -> dict[str, dict[str, dict[str, Any]]]:
    """The accuracy per level, subject and source, where the problems have them."""
    found = {}
    for key in BREAKDOWNS:
        groups: dict[str, list[Problem]] = defaultdict(list)
        for problem in problems:
            if key in problem.groups:
                groups[problem.groups[key]].append(problem)
        if 0 < len(groups) <= MAX_GROUPS:
            found[key] = {label: _accuracy(groups[label]) for label in sorted(groups, key=_by_number)}
    return found


def _by_number(label: str) -> tuple[float, str]:
    """Levels by their value, 7.5 before 10; names after them, by the alphabet."""
    try:
        return float(label), ""
    except ValueError:
        return math.inf, label
