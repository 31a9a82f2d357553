"""The table of a run's samples: a row for each source and strategy, and for all strategies of it together.

{"source": "math", "strategy": "masked", "problems": 7500, "samples": 1680000, "correct": 241000, "unique_correct": 192000,
 "solved": 6442, "coverage": 85.893, "solved_so_far": 6600, "coverage_so_far": 88.0, "kept": {"grade": 1680000, ...},
 "dropped": {"filter": {"incorrect": 1400000, ...}, ...}, "code_blocks": {"kept": {"0": 31, "1": 812, "2+": 9, ...}, ...},
 "not_asked": {}, "executions": 1700000, "errors": {"timeout": 310}, "ended": {"answer": 1510000, "error": 41000, ...}}
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from nemo_ext.curation.coverage.account import ByStrategy, Samples, Step
from nemo_ext.curation.coverage.seen import BLOCKS, CORRECT, KEPT, NOT_ASKED, Key, Seen
from nemo_ext.curation.duplicates.exact import first_equal


@dataclass
class Run:
    """All that is known of a run's samples."""

    sources: dict[Any, str]
    """Id of every problem -> where it is from."""
    asked: ByStrategy
    steps: list[Step]
    seen: list[Mapping[Key, Seen]]
    """What was counted of the rows of all stages."""
    strategies: list[str] = field(default_factory=list)
    """In the order of the table."""


@dataclass
class _Cell:
    """What is counted of one source and strategy."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    correct: int = 0
    solved: set[Any] = field(default_factory=set)
    solutions: list[bytes] = field(default_factory=list)

    def add(self, problem: Any, seen: Seen) -> None:
        self.counts.update(seen.counts)
        self.correct += seen.correct.bit_count()
        if seen.correct:
            self.solved.add(problem)
            self.solutions.append(seen.solutions)


def percent(part: int, whole: int) -> float | None:
    """To three decimals; None of nothing."""
    return float(round(Fraction(100 * part, whole), 3)) if whole else None


def table(run: Run) -> list[dict[str, Any]]:
    """The strategies of each source, then they together; at the end, of several sources, everything (source None)."""
    cells = _cells(run)
    sources = sorted(set(run.sources.values()))
    rows = []
    for source in sources:
        for number, strategy in enumerate(run.strategies, start=1):
            rows.append(_row(run, cells, [source], [strategy], run.strategies[:number]) | {"strategy": strategy})
        rows.append(_row(run, cells, [source], run.strategies, run.strategies))
    if len(sources) > 1:
        rows.append(_row(run, cells, sources, run.strategies, run.strategies) | {"source": None})
    return rows


def strategies_of(asked: ByStrategy, seen: Iterable[Key], first: Sequence[str] = ()) -> list[str]:
    """Those named first, then the others as they were asked: each goes on counting where the one before it ended.

    Raises:
        ValueError: one of those named has no row.
    """
    begins: dict[str, int] = {}
    for strategies in asked.values():
        for name, samples in strategies.items():
            begin = samples & -samples
            begins[name] = min(begins.get(name, begin), begin)
    others = sorted({key.strategy for key in seen if key.id is not None and key.strategy is not None} - begins.keys())
    found = [*sorted(begins, key=lambda name: (begins[name], name)), *others]
    if unknown := [name for name in first if name not in found]:
        raise ValueError(f"no row has the strategy {unknown[0]!r}; they have {', '.join(found)}")
    return list(dict.fromkeys([*first, *found]))


def _cells(run: Run) -> dict[tuple[str, str], _Cell]:
    cells: dict[tuple[str, str], _Cell] = {}
    for key, seen in (each for stage in run.seen for each in stage.items()):
        if key.id is not None and key.strategy is not None:
            cells.setdefault((run.sources[key.id], key.strategy), _Cell()).add(key.id, seen)
    return cells


def _row(
    run: Run,
    cells: Mapping[tuple[str, str], _Cell],
    sources: Sequence[str],
    strategies: Sequence[str],
    so_far: Sequence[str],
) -> dict[str, Any]:
    """The row of all these together; `so_far`: the strategies up to this row's, itself included."""
    mine = _chosen(cells, sources, strategies)
    counts = sum((cell.counts for cell in mine), Counter[tuple[str, str]]())
    problems = sum(source in sources for source in run.sources.values())
    asked = _asked(run, sources, strategies)
    samples, correct = _size(asked), sum(cell.correct for cell in mine)
    was_asked = bool(samples or _named(counts, NOT_ASKED))
    solved, reached = _solved(mine), _solved(_chosen(cells, sources, so_far))
    return {
        "source": sources[0],
        "strategy": None,
        "problems": problems,
        "samples": samples,
        "not_asked": _named(counts, NOT_ASKED),
        "correct": correct,
        "correct_percent": percent(correct, samples),
        "unique_correct": _distinct([each for cell in mine for each in cell.solutions]),
        "solved": solved,
        "coverage": percent(solved, problems) if was_asked else None,
        "solved_so_far": reached,
        "coverage_so_far": percent(reached, problems),
        **_fates(run.steps, asked),
        "code_blocks": {of: {name: counts[of, name] for name in BLOCKS} for of in (CORRECT, KEPT)},
        "executions": counts["executions", ""],
        "errors": _named(counts, "errors"),
        "ended": _named(counts, "ended"),
    }


def _fates(steps: Sequence[Step], asked: Samples) -> dict[str, Any]:
    """What became of these samples.

    Raises:
        ValueError: they are not those kept at the end and those dropped, together.
    """
    kept = {step.name: _shared(step.kept, asked) for step in steps}
    dropped = {step.name: _reasons(step, asked) for step in steps}
    samples, last = _size(asked), kept[steps[-1].name]
    lost = sum(sum(each.values()) for each in dropped.values())
    if samples != last + lost:
        raise ValueError(f"{samples:,} samples are not {last:,} kept and {lost:,} dropped")
    return {"kept": kept, "kept_percent": percent(last, samples), "dropped": dropped}


def _chosen(cells: Mapping[tuple[str, str], _Cell], sources: Sequence[str], strategies: Sequence[str]) -> list[_Cell]:
    keys = ((source, strategy) for source in sources for strategy in strategies)
    return [cells[key] for key in keys if key in cells]


def _asked(run: Run, sources: Sequence[str], strategies: Sequence[str]) -> Samples:
    found = {}
    for problem, by_strategy in run.asked.items():
        if run.sources[problem] in sources:
            found[problem] = sum(by_strategy.get(strategy, 0) for strategy in strategies)  # they share no sample
    return found


def _size(samples: Samples) -> int:
    return sum(each.bit_count() for each in samples.values())


def _shared(some: Samples, others: Samples) -> int:
    return sum((each & others.get(problem, 0)).bit_count() for problem, each in some.items())


def _reasons(step: Step, asked: Samples) -> dict[str, int]:
    counts = {reason: _shared(samples, asked) for reason, samples in sorted(step.dropped.items())}
    return {reason: count for reason, count in counts.items() if count}


def _solved(cells: Iterable[_Cell]) -> int:
    return len(set().union(*(cell.solved for cell in cells)))


def _named(counts: Counter[tuple[str, str]], of: str) -> dict[str, int]:
    return {name: count for (kind, name), count in sorted(counts.items()) if kind == of and count}


def _distinct(solutions: list[bytes]) -> int:
    keys = np.frombuffer(b"".join(solutions), np.uint64).reshape(-1, 2)
    return int((first_equal(keys) == np.arange(len(keys))).sum())
