"""Ways to ask a row: by what it has in a column, and where wanted several at once.

by: problem_source                                 # one way for each row
by_source: {math: {prompt: ..., num_samples: 4}, gsm8k: {prompt: ...}}

strategies:                                        # each row in every one of them; samples say which, as `strategy`
  default: {by_source: {math: {...}, gsm8k: {...}}}
  masked: {by_source: {"*": {...}}}                # rows without its masked_solution are dropped, counted
  subject: {by: subject, by_source: {Algebra: {...}, Geometry: {...}, "*": null}}   # null: such rows are not asked so
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omegaconf import MISSING

from nemo_ext.prompts.prompt import Prompt, check_prompt, required_keys
from nemo_ext.samples import special_tokens
from recipes.asking.samples import SampledStage, Sampler, check_samples

if TYPE_CHECKING:
    import re

    from nemo_ext.rows.row import Row

PROBLEM_SOURCE = "problem_source"
OTHERS = "*"  # in by_source: rows of any other value


@dataclass(kw_only=True)
class PerSource:
    prompt: Prompt = MISSING
    num_samples: int = 1
    """Completions of each row, each with a seed of its own."""


@dataclass(kw_only=True)
class Strategy:
    by: str = PROBLEM_SOURCE
    """The column that decides how a row is asked."""
    by_source: dict[str, PerSource | None] = field(default_factory=dict)
    """What a row has in the column `by` -> how it is asked, null for not at all; `*`: rows with any other value there, and
    those without one."""

    @property
    def asked(self) -> dict[str, PerSource]:
        return {value: each for value, each in self.by_source.items() if each is not None}


@dataclass(frozen=True)
class Way:
    """How the rows of one strategy with one value in its column are asked."""

    strategy: str
    """Empty where the stage has one way for each row."""
    first: int
    """The sample_index of the first sample: indices of the strategies before it come first."""
    sampler: Sampler
    num_samples: int
    keys: tuple[str, ...]
    """The keys of a row that the prompt needs."""
    needs: tuple[str, ...]
    """Those that a row must have before anything is asked."""

    def lacking(self, row: "Row") -> str | None:
        return next((key for key in self.needs if row.get(key) is None), None)

    def why_not(self, row: "Row", special: "re.Pattern[str] | None") -> str | None:
        """The reason to drop the row, where it cannot be asked as it is written."""
        if (lacking := self.lacking(row)) is not None:
            return f"missing_{lacking}"
        injects = special is not None and any(special.search(str(row.get(key, ""))) for key in self.keys)
        return special_tokens.REASON if injects else None

    def marked(self, row: "Row") -> "Row":
        """The row with the strategy that it is asked under."""
        return row | {"strategy": self.strategy} if self.strategy else row


class Ways:
    """Every way in which a stage asks rows.

    Args:
        needs: what each row must have besides its prompt's keys.
        given: keys that a row gets before it is asked.
    """

    def __init__(
        self, cfg: SampledStage, strategies: Mapping[str, Strategy], needs: frozenset[str], given: frozenset[str]
    ) -> None:
        self._place, self._strategies = f"stages.{cfg.name}", strategies
        self._ways: dict[str, dict[str, Way | None]] = {}
        self.width = 0
        """Samples that a row may have, of all strategies together."""
        for name, strategy in strategies.items():
            self._ways[name] = {
                value: None if each is None else _way(cfg, name, self.width, each, needs, given)
                for value, each in strategy.by_source.items()
            }
            self.width += max(each.num_samples for each in strategy.asked.values())

    def __iter__(self) -> Iterator[Way]:
        return (way for ways in self._ways.values() for way in ways.values() if way is not None)

    def of(self, row: "Row") -> Iterator[Way]:
        """The ways of one row, one of each strategy that asks it.

        Raises:
            ValueError: a value that a strategy does not know.
        """
        for name, ways in self._ways.items():
            by = self._strategies[name].by
            value = str(row.get(by))
            if value not in ways and OTHERS not in ways:
                raise ValueError(
                    f"{place(self._place, name)}.by_source has no {row.get(by)!r}, the {by} of a row; it has {sorted(ways)}"
                )
            way = ways.get(value, ways.get(OTHERS))
            if way is not None:
                yield way

    def columns(self) -> dict[str, str]:
        """The column that each strategy asks for by name -> the place of that setting."""
        found = {each.by: f"{place(self._place, name)}.by={each.by}" for name, each in self._strategies.items()}
        return {column: where for column, where in found.items() if column != PROBLEM_SOURCE}


def place(stage: str, strategy: str) -> str:
    """Where a strategy's settings are."""
    return f"{stage}.strategies.{strategy}" if strategy else stage


def check_strategies(cfg: SampledStage, strategies: Mapping[str, Strategy]) -> None:
    """Raises ValueError for a strategy that cannot work, before anything is submitted."""
    for name, strategy in strategies.items():
        where = place(f"stages.{cfg.name}", name)
        if not strategy.asked:
            raise ValueError(f"{where}.by_source is empty, so no row can be asked")
        if not strategy.by:
            raise ValueError(
                f"{where}.by is empty: name the column whose values by_source has, such as problem_source"
            )
        for value, each in strategy.asked.items():
            check_prompt(each.prompt)
            check_samples(cfg, each.num_samples, f"{where}.by_source.{value}")


def _way(
    cfg: SampledStage, strategy: str, first: int, each: PerSource, needs: frozenset[str], given: frozenset[str]
) -> Way:
    keys = required_keys(each.prompt)
    lacking = tuple(sorted((keys | needs) - given))
    return Way(strategy, first, Sampler(cfg, each.prompt), each.num_samples, tuple(sorted(keys)), lacking)
