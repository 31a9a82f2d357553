"""From rows to requests: which prompt a row gets, how often it is asked, and with which seeds."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

from nemo_ext.prompts.prompt import Prompt, check_prompt, required_keys
from nemo_ext.rows.outside.columns import BadRow, check_columns, renamed
from nemo_ext.samples import special_tokens
from recipes.asking.served import SamplingConfig, stop_token_ids
from recipes.asking.tool_use import ToolStage

if TYPE_CHECKING:
    import re

    from nemo_ext.rows.row import Row, RowWriter
    from nemo_ext.serving.client.requests import Request, Sampling

log = logging.getLogger(__name__)

ChatText = Callable[[list[dict[str, str]]], str]
OTHERS = "*"  # in by_source: rows of any other source


@dataclass(kw_only=True)
class PerSource:
    prompt: Prompt = MISSING
    num_samples: int = 1
    """Completions of each row, each with a seed of its own."""


@dataclass(kw_only=True)
class SamplingStage(ToolStage):
    """A stage that asks for samples of rows."""

    splits_rows: ClassVar[bool] = True
    input: str = field(default=MISSING, metadata={"path": True})
    """An earlier stage's folder, a file, a pattern of files, a folder as the hub lays it out, or hf://<owner>/<data set>."""
    split: str | None = None
    """In a folder or on the hub: whose files."""
    columns: Any = None
    """What a column is here -> its name in the file, as {problem: query}; null: not taken."""
    by_source: dict[str, PerSource] = field(default_factory=dict)
    """problem_source -> how its rows are asked; `*`: those of any other source, and those without one."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    seed: int = 0


@dataclass(frozen=True)
class _Way:
    """How rows of one source are asked."""

    prompt: Prompt
    num_samples: int
    keys: tuple[str, ...]
    """Of the row, that the prompt needs."""
    stop_token_ids: tuple[int, ...]

    def lacking(self, row: "Row") -> str | None:
        return next((key for key in self.keys if row.get(key) is None), None)

    def why_not(self, row: "Row", special: "re.Pattern[str] | None") -> str | None:
        """The reason to drop the row, where it cannot be asked as it is written."""
        if (lacking := self.lacking(row)) is not None:
            return f"missing_{lacking}"
        injects = special is not None and any(special.search(str(row[key])) for key in self.keys)
        return special_tokens.REASON if injects else None


def check_prompts(cfg: SamplingStage) -> None:
    """Raises ValueError for a prompt that cannot work, before anything is submitted."""
    check_columns(f"stages.{cfg.name}.columns", cfg.columns)
    if not cfg.by_source:
        raise ValueError(f"stages.{cfg.name}.by_source is empty, so no row can be asked")
    for source, each in cfg.by_source.items():
        check_prompt(each.prompt)
        if each.num_samples > 1 and cfg.sampling.temperature == 0:
            raise ValueError(
                f"stages.{cfg.name}: {each.num_samples} samples of each row of {source} at temperature 0 are the same "
                "one. Set sampling.temperature, or num_samples to 1"
            )


class Samples:
    """Every sample a stage's shard is to make.

    Args:
        files: JSONL or parquet; lines that cannot be read are excused in files from outside only.
        chat_text: turns messages into the text the model sees, where they are to be sent as text; None: as they are.
        variant: what else a key depends on, such as the settings of a tool loop.
        special: finds the model's special tokens in a text; rows whose text has one would become another prompt.
    """

    def __init__(
        self,
        cfg: SamplingStage,
        files: list[Path],
        chat_text: ChatText | None = None,
        variant: str = "",
        special: "re.Pattern[str] | None" = None,
    ) -> None:
        self.cfg = cfg
        self.files = files
        self.model = ""
        """What stands for the model in every request's key; set once it is known."""
        self.chat_text = chat_text
        self.variant = variant
        self.special = special
        self._said: set[str] = set()  # the columns that were taken as the problem
        self._ways = {name: _way(cfg, each) for name, each in cfg.by_source.items()}

    def count(self) -> int:
        """How many there are.

        Raises:
            ValueError: an unknown problem_source, or no row has what its prompt needs.
        """
        total, example = 0, None
        for row in self._rows():
            if not isinstance(row, str):
                way = self._way(row)
                lacking = way.lacking(row)
                total += 0 if way.why_not(row, self.special) else way.num_samples
                example = (way, lacking, row) if lacking else example
        if total == 0 and example is not None:
            way, lacking, row = example
            raise ValueError(
                f"{self.cfg.input}: no row has {lacking!r}, which prompt {way.prompt.name} needs; rows have {sorted(row)}"
            )
        return total

    def rows(self, dropped: "RowWriter | None" = None, only: _Way | None = None) -> Iterator[tuple["Row", "Request"]]:
        """In input order, the row with its sample_index, and the request.

        Rows that cannot be asked are left out, and written to `dropped`. `only`: those of one way of asking.
        """
        from nemo_ext.prompts.prompt import render
        from nemo_ext.serving.client.requests import Request, request_key

        for row, way in self._asked(dropped):
            if only is not None and way is not only:
                continue
            prompt = render(way.prompt, row)
            rendered = self.chat_text is not None and not isinstance(prompt, str)
            if self.chat_text is not None and not isinstance(prompt, str):
                prompt = self.chat_text(prompt)
            for index in range(way.num_samples):
                sampling = self._sampling(way, row["id"], index)
                key = request_key(self.model, prompt, sampling, index, self.variant)
                yield row | {"sample_index": index}, Request(key, prompt, sampling, rendered)

    def requests(self) -> Iterator["Request"]:
        """One prompt after the other: servers keep the worked examples that prompts begin with."""
        for way in self._ways.values():
            for _, request in self.rows(only=way):
                yield request

    def _asked(self, dropped: "RowWriter | None") -> Iterator[tuple["Row", _Way]]:
        for row in self._rows():
            if isinstance(row, str):
                if dropped is not None:
                    dropped.drop({"raw": row}, "malformed_json")
                continue
            way = self._way(row)
            if (reason := way.why_not(row, self.special)) is None:
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
        source = row.get("problem_source")
        way = self._ways.get(str(source)) or self._ways.get(OTHERS)
        if way is None:
            raise ValueError(
                f"stages.{self.cfg.name}.by_source has no {source!r}, the problem_source of a row; "
                f"it has {sorted(self._ways)}"
            )
        return way

    def _sampling(self, way: _Way, row_id: str, index: int) -> "Sampling":
        from nemo_ext.rows.row import content_id
        from nemo_ext.serving.client.requests import Sampling

        settings = self.cfg.sampling
        # from the row, not from its place, so that adding rows or samples changes none of the others
        seed = int(content_id(str(self.cfg.seed), str(row_id), str(index))[:8], 16) >> 1
        return Sampling(
            settings.temperature, settings.top_p, settings.top_k, settings.max_tokens, tuple(way.prompt.stop), seed,
            way.stop_token_ids,
        )  # fmt: skip


def _way(cfg: SamplingStage, each: PerSource) -> _Way:
    keys = tuple(sorted(required_keys(each.prompt)))
    return _Way(each.prompt, each.num_samples, keys, stop_token_ids(cfg, each.prompt))
