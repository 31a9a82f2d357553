"""From rows to questions: which prompt a row gets, how often it is asked, and with which seeds."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

from nemo_ext.prompts.prompt import Prompt, check_prompt, required_keys
from nemo_ext.rows.outside.columns import BadRow, check_columns, renamed
from nemo_ext.rows.row import OF_A_SOLUTION
from nemo_ext.samples import special_tokens
from recipes.asking.chain import Chain, Step, check_chain
from recipes.asking.connect import takes_any_model
from recipes.asking.question import Question
from recipes.asking.samples import SampledStage, Sampler, check_samples, earlier_index, sample_name, seed_of
from recipes.work import Asking

if TYPE_CHECKING:
    import re

    from nemo_ext.rows.row import Row, RowWriter
    from nemo_ext.serving.client.requests import Completion

log = logging.getLogger(__name__)

PROBLEM_SOURCE = "problem_source"
OTHERS = "*"  # in by_source: rows of any other value


@dataclass(kw_only=True)
class PerSource:
    prompt: Prompt = MISSING
    num_samples: int = 1
    """Completions of each row, each with a seed of its own."""


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


@dataclass(frozen=True)
class _Way:
    """How rows with one value in the column `by` are asked."""

    sampler: Sampler
    num_samples: int
    keys: tuple[str, ...]
    """That the prompt needs."""
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


def check_prompts(cfg: SamplingStage) -> None:
    """Raises ValueError for a prompt that cannot work, before anything is submitted."""
    check_columns(f"stages.{cfg.name}.columns", cfg.columns)
    if not cfg.by_source:
        raise ValueError(f"stages.{cfg.name}.by_source is empty, so no row can be asked")
    if not cfg.by:
        raise ValueError(
            f"stages.{cfg.name}.by is empty: name the column whose values by_source has, such as problem_source"
        )
    for value, each in cfg.by_source.items():
        check_prompt(each.prompt)
        check_samples(cfg, each.num_samples, f"stages.{cfg.name}.by_source.{value}")
    check_chain(f"stages.{cfg.name}", cfg.chain)


def work_of_samples(cfg: SamplingStage) -> Asking:
    samples = {value: each.num_samples + len(cfg.chain) for value, each in cfg.by_source.items()}
    return Asking(input=cfg.input, by=cfg.by, samples=samples, max_tokens=cfg.sampling.max_tokens)


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
        self._ways = {name: _way(cfg, each, self.chain) for name, each in cfg.by_source.items()}
        self._width = max(each.num_samples for each in cfg.by_source.values())

    def count(self) -> int:
        """How many there are, with the questions of the chain.

        Raises:
            ValueError: a row with a value that by_source lacks, or with the column of a step; no row has the column `by`,
                or what its prompt needs.
        """
        total, example = 0, None
        columns = {PROBLEM_SOURCE} if self.cfg.by == PROBLEM_SOURCE else set()  # which a file of one's own may lack
        for row in self._rows():
            if not isinstance(row, str):
                way = self._way(row)
                lacking = way.lacking(row)
                self._refuse_taken(row)
                total += 0 if way.why_not(row, self.special) else way.num_samples + len(self.chain)
                example = (way, lacking, row) if lacking else example
                if self.cfg.by not in columns:
                    columns |= row.keys()
        if columns and self.cfg.by not in columns:
            raise ValueError(
                f"stages.{self.cfg.name}.by={self.cfg.by}: no row has that column; rows have {', '.join(sorted(columns))}"
            )
        if total == 0 and example is not None:
            way, lacking, row = example
            needed_by = f"prompt {way.sampler.prompt.name}" if lacking in way.keys else "a step of the chain"
            raise ValueError(
                f"{self.cfg.input}: no row has {lacking!r}, which {needed_by} needs; rows have {sorted(row)}"
            )
        return total

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
        only: _Way | None = None,
        arrived: "Callable[[Completion], None] | None" = None,
    ) -> Iterator[tuple["Row", Question]]:
        """In input order, the row with its sample_index, and the question. What the row says of a solution that it has
        already is under `earlier`.

        Args:
            dropped: takes the rows that cannot be asked, which are left out.
            only: rows of one way of asking.
            arrived: is told the replies of the chain.
        """
        for row, way in self._asked(dropped, len(self.chain), arrived):
            if only is not None and way is not only:
                continue
            name, first = sample_name(row), earlier_index(row) * self._width
            seeds = {number: seed_of(self.cfg.seed, name, number) for number in range(way.num_samples)}
            kept = with_earlier(row)
            for question in way.sampler.questions(row, seeds):
                yield kept | {"sample_index": first + question.index}, question

    def questions(self) -> Iterator[Question]:
        """One prompt after the other: servers keep the worked examples that prompts begin with."""
        for way in self._ways.values():
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
        self, dropped: "RowWriter | None", steps: int, arrived: "Callable[[Completion], None] | None" = None
    ) -> Iterator[tuple["Row", _Way]]:
        """The rows that can be asked, with the replies to so many steps of the chain."""
        for row in self._rows():
            if isinstance(row, str):
                if dropped is not None:
                    dropped.drop({"raw": row}, "malformed_json")
                continue
            way = self._way(row)
            reason = way.why_not(row, self.special)
            if reason is None and steps:
                row, reason = self.chain.follow(row, steps, arrived)
                reason = reason or way.why_not(row, self.special)
            if reason is None:
                yield row, way
            elif dropped is not None:
                dropped.drop(row, reason)

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

    def _way(self, row: "Row") -> _Way:
        value = row.get(self.cfg.by)
        way = self._ways.get(str(value)) or self._ways.get(OTHERS)
        if way is None:
            raise ValueError(
                f"stages.{self.cfg.name}.by_source has no {value!r}, the {self.cfg.by} of a row; it has {sorted(self._ways)}"
            )
        return way


def _way(cfg: SamplingStage, each: PerSource, chain: Chain) -> _Way:
    keys = required_keys(each.prompt)
    needs = (keys | chain.needs) - chain.names
    return _Way(Sampler(cfg, each.prompt), each.num_samples, tuple(sorted(keys)), tuple(sorted(needs)))


def with_earlier(row: "Row") -> "Row":
    """The row without what it says of a solution that it has, which is under `earlier`: it gets another one."""
    if all(row.get(key) is None for key in ("sample_index", "generation", "generated_solution")):
        return row
    kept = {key: value for key, value in row.items() if key not in OF_A_SOLUTION}
    return kept | {"earlier": {key: value for key, value in row.items() if key in OF_A_SOLUTION and value is not None}}
