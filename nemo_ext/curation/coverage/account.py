"""The account of every sample: which stage kept it, which dropped it and why, or an error that names what does not add up.

follow({"77ab...": {"default": 0b111}}, [Gathered("filter", kept, dropped)])
->  [Step("filter", kept={"77ab...": 0b101}, dropped={"incorrect": {"77ab...": 0b010}})]
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nemo_ext.curation.coverage.seen import Key, Seen, lowest

Samples = dict[Any, int]
"""Id of a problem -> the set of its samples, bit n for sample_index n."""
ByStrategy = dict[Any, dict[str, int]]
"""Id of a problem -> strategy -> the set of the samples that it was asked for."""


@dataclass(frozen=True)
class Gathered:
    """The rows of one stage."""

    name: str
    kept: Mapping[Key, Seen]
    dropped: Mapping[Key, Seen]


@dataclass
class Step:
    """What one stage did with the samples that came into it."""

    name: str
    kept: Samples = field(default_factory=dict)
    dropped: dict[str, Samples] = field(default_factory=dict)


def asked_samples(first: Gathered) -> ByStrategy:
    """Every sample that was asked for, whether its reply came or not.

    Raises:
        ValueError: two strategies have one sample of a problem.
    """
    asked: ByStrategy = {}
    for key, seen in _all(first):
        if seen.samples:
            strategies = asked.setdefault(key.id, {})
            assert key.strategy is not None, "of the stage that asked, every row is read as of a strategy"
            for other, samples in strategies.items():
                if twice := samples & seen.samples:
                    raise ValueError(
                        f"{first.name}: sample {lowest(twice)} of problem {key.id!r} occurs twice, as of {other} and of "
                        f"{key.strategy}"
                    )
            strategies[key.strategy] = strategies.get(key.strategy, 0) | seen.samples
    return asked


def follow(asked: ByStrategy, stages: Sequence[Gathered]) -> list[Step]:
    """What became of the samples, stage after stage.

    Raises:
        ValueError: a stage lacks one that came into it, or has one that did not, twice, or of another strategy.
    """
    steps: list[Step] = []
    came = {problem: _union(strategies.values()) for problem, strategies in asked.items()}
    for gathered in stages:
        step = _step(asked, gathered)
        _require_all(asked, came, step)
        steps.append(step)
        came = step.kept
    return steps


def _all(gathered: Gathered) -> Iterable[tuple[Key, Seen]]:
    yield from gathered.kept.items()
    yield from gathered.dropped.items()


def _step(asked: ByStrategy, gathered: Gathered) -> Step:
    step, there = Step(gathered.name), Samples()
    for key, seen in _all(gathered):
        if not seen.samples:
            continue
        if key.strategy is not None and (other := seen.samples & ~asked.get(key.id, {}).get(key.strategy, 0)):
            raise ValueError(
                f"{step.name} has sample {lowest(other)} of problem {key.id!r} under the strategy {key.strategy}, where "
                "none such was asked for: its rows are of another run"
            )
        if twice := there.get(key.id, 0) & seen.samples:
            raise ValueError(f"{step.name}: sample {lowest(twice)} of problem {key.id!r} occurs twice")
        there[key.id] = there.get(key.id, 0) | seen.samples
        into = step.dropped.setdefault(key.reason, {}) if key.reason else step.kept
        into[key.id] = into.get(key.id, 0) | seen.samples
    return step


def _require_all(asked: ByStrategy, came: Samples, step: Step) -> None:
    left = [step.kept, *step.dropped.values()]
    for problem, strategies in asked.items():
        went, arrived = _union(each.get(problem, 0) for each in left), came.get(problem, 0)
        if extra := went & ~arrived:
            raise ValueError(
                f"{step.name} has sample {lowest(extra)} of problem {problem!r}, which the stage before it did not keep"
            )
        if lost := arrived & ~went:
            strategy = next(name for name, samples in strategies.items() if samples & lost)
            raise ValueError(_lost(asked, came, step, problem, strategy, lowest(lost)))
    if strange := {problem for each in left for problem in each} - asked.keys():
        raise ValueError(f"{step.name} has samples of problem {min(strange, key=str)!r}, of which none was asked for")


def _lost(asked: ByStrategy, came: Samples, step: Step, problem: Any, strategy: str, sample: int) -> str:
    def count(samples: Samples) -> int:
        return sum((each & asked.get(name, {}).get(strategy, 0)).bit_count() for name, each in samples.items())

    dropped = sum(map(count, step.dropped.values()))
    return (
        f"{step.name}: of strategy {strategy} {count(came):,} samples came in, and {count(step.kept):,} kept + {dropped:,} "
        f"dropped do not add up to them; sample {sample} of problem {problem!r} is neither"
    )


def _union(sets: Iterable[int]) -> int:
    found = 0
    for each in sets:
        found |= each
    return found
