"""From rows to questions: which prompt a row gets, how often it is asked, and with which seeds."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

from nemo_ext.prompts.prompt import Prompt
from nemo_ext.rows.outside.columns import BadRow, check_columns, renamed
from nemo_ext.rows.row import OF_A_SOLUTION
from nemo_ext.samples import special_tokens
from recipes.asking.chain import Chain, Step, check_chain
from recipes.asking.connect import takes_any_model
from recipes.asking.question import Question
from recipes.asking.samples import SampledStage, earlier_index, sample_name, seed_of
from recipes.asking.strategies import PROBLEM_SOURCE, PerSource, Strategy, Way, Ways, check_strategies
from recipes.work import Asking

if TYPE_CHECKING:
    from nemo_ext.rows.row import Row, RowWriter
    from nemo_ext.serving.client.requests import Completion

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class SamplingStage(SampledStage):
    """A stage that asks for samples of rows."""

    splits_rows: ClassVar[bool] = True
    input: str = field(default=MISSING, metadata={"path": True})
    """An earlier stage's folder, a file, a pattern of files, a folder as the hub lays it out, or hf://<owner>/<data set>."""
    split: str | None = None
    """In a folder or on the hub: whose files."""
    columns: Any = None
    """What a column is here -> its name in the file, as {problem: query}; null: not taken."""
    by: str = PROBLEM_SOURCE
    """The column that decides how a row is asked."""
    by_source: dict[str, PerSource] = field(default_factory=dict)
    """What a row has in the column `by` -> how it is asked; `*`: rows with any other value there, and those without one."""
    chain: dict[str, Step] = field(default_factory=dict)
    """What is asked before, step by step, and each step's reply a key of the prompts after it (recipes/asking/chain.py)."""
    strategies: dict[str, Strategy] = field(default_factory=dict)
    """In the place of by and by_source: several ways to ask each row, by name (recipes/asking/strategies.py)."""

    @property
    def all_strategies(self) -> dict[str, Strategy]:
        """`strategies`; or the one way of by_source, which has no name."""
        return self.strategies or {"": Strategy(by=self.by, by_source=dict(self.by_source))}

    @property
    def prompts(self) -> list[Prompt]:
        """All that rows are asked with."""
        ways = (each for strategy in self.all_strategies.values() for each in strategy.asked.values())
        return [*(step.prompt for step in self.chain.values()), *(each.prompt for each in ways)]


def check_prompts(cfg: SamplingStage) -> None:
    """Raises ValueError for a prompt that cannot work, before anything is submitted."""
    check_columns(f"stages.{cfg.name}.columns", cfg.columns)
    if cfg.strategies and (cfg.by_source or cfg.chain):
        raise ValueError(
            f"stages.{cfg.name} has strategies and {'by_source' if cfg.by_source else 'chain'}: strategies have by_source "
            "each of their own, and a chain goes before one way of asking. Leave one of them out"
        )
    check_strategies(cfg, cfg.all_strategies)
    check_chain(f"stages.{cfg.name}", cfg.chain)


def work_of_samples(cfg: SamplingStage) -> Asking:
    ways = {
        name: {value: each.num_samples + len(cfg.chain) if each else 0 for value, each in strategy.by_source.items()}
        for name, strategy in cfg.all_strategies.items()
    }
    first, *others = [
        Asking(input=cfg.input, by=cfg.all_strategies[name].by, samples=samples, max_tokens=cfg.sampling.max_tokens)
        for name, samples in ways.items()
    ]
    return replace(first, others=tuple(others))


class Samples:
    """Every sample a stage's shard is to make.

    Args:
        files: JSONL or parquet; lines that cannot be read are excused in files from outside only.
    """

    def __init__(self, cfg: SamplingStage, files: list[Path]) -> None:
        self.cfg = cfg
        self.files = files
        # a text with one of the model's would become another prompt; which ones another's server has is not known
        any_model = takes_any_model(cfg)
        self.special = None if any_model else special_tokens.finder(special_tokens.of_checkpoint(cfg.model.hf_path))
        self._said: set[str] = set()  # the columns that were taken as the problem
        self.chain = Chain(cfg, cfg.chain, self.special)
        self._ways = Ways(cfg, cfg.all_strategies, needs=self.chain.needs, given=self.chain.names)

    def count(self) -> int:
        """How many there are, with the questions of the chain.

        Raises:
            ValueError: a row with a value that by_source lacks, or with the column of a step; no row has the column `by`,
                or what its prompt needs.
        """
        totals: Counter[str] = Counter()
        examples: dict[str, tuple[Way, str, Row]] = {}
        columns: set[str] = set()
        for row in self._rows():
            if isinstance(row, str):
                continue
            self._refuse_taken(row)
            columns |= row.keys()
            for way in self._ways.of(row):
                if lacking := way.lacking(row):
                    examples[way.strategy] = (way, lacking, row)
                totals[way.strategy] += 0 if way.why_not(row, self.special) else way.num_samples + len(self.chain)
        for column, where in self._ways.columns().items():
            if columns and column not in columns:
                raise ValueError(f"{where}: no row has that column; rows have {', '.join(sorted(columns))}")
        for strategy, (way, lacking, row) in examples.items():
            if totals[strategy] == 0:
                needed_by = f"prompt {way.sampler.prompt.name}" if lacking in way.keys else "a step of the chain"
                raise ValueError(
                    f"{self.cfg.input}: no row has {lacking!r}, which {needed_by} needs; rows have {sorted(row)}"
                )
        return totals.total()

    def _refuse_taken(self, row: "Row") -> None:
        taken = sorted(self.chain.names & row.keys())
        if taken:
            raise ValueError(
                f"stages.{self.cfg.name}.chain.{taken[0]}: row {row['id']!r} has a column of that name, which the step's "
                "reply would replace. Give the step another name"
            )

    def rows(
        self,
        dropped: "RowWriter | None" = None,
        only: Way | None = None,
        arrived: "Callable[[Completion], None] | None" = None,
    ) -> Iterator[tuple["Row", Question]]:
        """In input order, the row with its sample_index, and the question. What the row says of a solution that it has
        already is under `earlier`.

        Args:
            dropped: takes the rows that cannot be asked, which are left out.
            only: rows of one way of asking.
            arrived: is told the replies of the chain.
        """
        for row, way in self._asked(dropped, len(self.chain), arrived, only):
            first = earlier_index(row) * self._ways.width + way.first
            name = f"{sample_name(row)}\x1f{way.strategy}" if way.strategy else sample_name(row)
            seeds = {number: seed_of(self.cfg.seed, name, number) for number in range(way.num_samples)}
            kept = way.marked(with_earlier(row))
            for question in way.sampler.questions(row, seeds):
                yield kept | {"sample_index": first + question.index}, question

    def questions(self) -> Iterator[Question]:
        """One prompt after the other: servers keep the worked examples that prompts begin with."""
        for way in self._ways:
            for _, question in self.rows(only=way):
                yield question

    def steps(self) -> list[Callable[[], Iterator[Question]]]:
        """The questions of each step of the chain; those of one begin with the replies to the steps before it."""
        return [partial(self._step_questions, number) for number in range(len(self.chain))]

    def _step_questions(self, number: int) -> Iterator[Question]:
        for row, _ in self._asked(None, number):
            question = self.chain.question(row, number)
            if question is not None:
                yield question

    def _asked(
        self,
        dropped: "RowWriter | None",
        steps: int,
        arrived: "Callable[[Completion], None] | None" = None,
        only: Way | None = None,
    ) -> Iterator[tuple["Row", Way]]:
        """The rows that can be asked, each once for each of its ways, with the replies to so many steps of the chain."""
        for row in self._rows():
            if isinstance(row, str):
                if dropped is not None:
                    dropped.drop({"raw": row}, "malformed_json")
                continue
            for way in self._ways.of(row):
                if only is not None and way is not only:
                    continue
                asked, reason = row, way.why_not(row, self.special)
                if reason is None and steps:
                    asked, reason = self.chain.follow(row, steps, arrived)
                    reason = reason or way.why_not(asked, self.special)
                if reason is None:
                    yield asked, way
                elif dropped is not None:
                    dropped.drop(way.marked(asked), reason)

    def _rows(self) -> Iterator["Row | str"]:
        """This shard's, each with an id; a `str` is a line that could not be read."""
        from nemo_ext.rows.outside.read import read_any
        from nemo_ext.rows.row import content_id, dumps, in_shard, read_rows
        from nemo_ext.rows.row_input import is_own

        for file in self.files:
            for row in read_rows(file) if is_own(file) else read_any(file):  # a stage's output has no lines to excuse
                if isinstance(row, str):
                    if self.cfg.shard == 0:
                        yield row
                    continue
                if row.get("id") is None:
                    row = {"id": content_id(dumps(row).decode())} | row
                row = self._named(row)
                if in_shard(row["id"], self.cfg.shard, self.cfg.shards):
                    yield row

    def _named(self, row: "Row") -> "Row":
        """With the row's problem under that name, whatever its layout calls it. A row that lacks a column that `columns`
        names has not got what it stands for, and is dropped where a prompt needs that."""
        from nemo_ext.rows.outside.known_shapes import problem_column

        if self.cfg.columns:
            try:
                row = renamed(row, self.cfg.columns)
            except BadRow:
                return {key: value for key, value in row.items() if key not in self.cfg.columns}
        column = problem_column(row)
        if column in (None, "problem"):
            return row
        if column not in self._said:
            self._said.add(column)
            log.info("%s: of rows without a problem, %r is taken as it", self.cfg.name, column)
        return row | {"problem": row[column]}


def with_earlier(row: "Row") -> "Row":
    """The row without what it says of a solution that it has, which is under `earlier`: it gets another one."""
    if all(row.get(key) is None for key in ("sample_index", "generation", "generated_solution")):
        return row
    kept = {key: value for key, value in row.items() if key not in OF_A_SOLUTION}
    return kept | {"earlier": {key: value for key, value in row.items() if key in OF_A_SOLUTION and value is not None}}
