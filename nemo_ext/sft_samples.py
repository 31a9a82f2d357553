"""Rows of any known shape -> token ids and loss masks, a batch at a time. What prepare_sft's workers do."""

import os
from array import array
from dataclasses import dataclass
from typing import Self

import jinja2

from nemo_ext.chat import ChatTokenizer, Messages, sample
from nemo_ext.datasets import BadRow, normalise
from nemo_ext.megatron.mask_audit import check_sample
from nemo_ext.model import Model
from nemo_ext.prompts import Prompt, render
from nemo_ext.rows import Row, content_id


@dataclass(frozen=True)
class SampleSettings:
    stage: str
    """What errors call the stage whose settings these are."""
    model: Model
    prompt: Prompt | None
    seq_length: int
    overlong: str


@dataclass(frozen=True)
class RowBatch:
    """Consecutive rows of one file; a `str` is a line that could not be read."""

    source: str
    first: int
    """The number of its first row in the file, counted from 1."""
    rows: list[Row | str]

    def name(self, index: int) -> str:
        """What errors call the row at `index`."""
        row = self.rows[index]
        identity = f" (id {row['id']})" if isinstance(row, dict) and row.get("id") else ""
        return f"{self.source} row {self.first + index}{identity}"


@dataclass(frozen=True)
class Made:
    """A sample on its way between processes: tokens uint32 and loss mask uint8, as bytes."""

    id: str
    tokens: bytes
    loss_mask: bytes
    truncated: bool


@dataclass(frozen=True)
class Dropped:
    reason: str
    detail: str | None = None


class Unusable(ValueError):
    """A row to drop; the message is the reason, `detail` what a person would want to know besides."""

    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(reason)
        self.detail = detail


class SampleMaker:
    """Turns batches into samples: `maker(batch)` has a Made or a Dropped for every row, in order.

    Raises:
        ValueError: naming the row: its mask would train something else than its answer, it is over-long and overlong
            is `error`, or a setting is missing that it needs.
    """

    def __init__(self, settings: SampleSettings, tokenizer: ChatTokenizer) -> None:
        self.settings, self.tokenizer = settings, tokenizer

    @classmethod
    def load(cls, settings: SampleSettings) -> Self:
        """For a process that is one of several: one thread each."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        return cls(settings, ChatTokenizer(settings.model))

    def __call__(self, batch: RowBatch) -> list[Made | Dropped]:
        rendered = [self._rendered(batch, index) for index in range(len(batch.rows))]
        ids = iter(self.tokenizer.batch_ids([text for pair in rendered if isinstance(pair, tuple) for text in pair]))
        return [
            pair if isinstance(pair, Dropped) else self._made(batch, index, next(ids), next(ids))
            for index, pair in enumerate(rendered)
        ]

    def _rendered(self, batch: RowBatch, index: int) -> tuple[str, str] | Dropped:
        """(prompt, answer) as text."""
        row = batch.rows[index]
        if isinstance(row, str):
            return Dropped("malformed_json")
        try:
            return self._texts(row)
        except Unusable as error:
            return Dropped(str(error), error.detail)
        except ValueError as error:
            raise ValueError(f"{batch.name(index)}: {error}") from error

    def _made(self, batch: RowBatch, index: int, prompt: list[int], answer: list[int]) -> Made | Dropped:
        row, limit, total = batch.rows[index], self.settings.seq_length, len(prompt) + len(answer)
        assert isinstance(row, dict), "only rows are rendered"
        truncated = total > limit
        if truncated:
            if self.settings.overlong == "drop":
                return Dropped("too_long")
            if self.settings.overlong == "error":
                raise ValueError(
                    f"{batch.name(index)} has {total} tokens, more than seq_length={limit}. Raise it, or set "
                    f"stages.{self.settings.stage}.overlong to drop or truncate"
                )
            if len(prompt) >= limit:
                return Dropped("prompt_too_long")
            answer = answer[: limit - len(prompt)]  # without an EOS, which would teach to stop halfway
        made = sample(prompt, answer)
        try:
            check_sample(made, len(prompt), self.tokenizer, truncated)
        except ValueError as error:
            raise ValueError(f"{batch.name(index)}: {error}") from error
        identity = str(row.get("id") or content_id(str(made.tokens)))
        return Made(identity, array("I", made.tokens).tobytes(), bytes(made.loss_mask), truncated)

    def _texts(self, row: Row) -> tuple[str, str]:
        """(prompt, answer) of a row; an empty prompt means that all of the text is trained."""
        if "text" in row:
            return "", _required(row, "text") + self.tokenizer.eos
        if "messages" in row:
            messages = _messages(row)
            return self._chat_texts(messages[:-1], messages[-1]["content"])
        if "input" in row:
            return self.tokenizer.base_texts(_required(row, "input"), _required(row, "output"))
        return self._problem_texts(row)

    def _problem_texts(self, row: Row) -> tuple[str, str]:
        try:
            normal = normalise(row, source="")
        except BadRow as error:
            raise Unusable(str(error)) from error
        solution = normal.get("generated_solution") or normal.get("solution")
        if not solution:
            raise Unusable("no_solution")
        if self.settings.prompt is None:
            raise ValueError(f"stages.{self.settings.stage}.prompt is not set, and rows with a problem need one")
        rendered = render(self.settings.prompt, normal)
        if isinstance(rendered, str):
            return self.tokenizer.base_texts(rendered, solution)
        return self._chat_texts(rendered, solution)

    def _chat_texts(self, messages: Messages, answer: str) -> tuple[str, str]:
        try:
            return self.tokenizer.chat_texts(messages, answer)
        except jinja2.TemplateError as error:  # such as roles that do not alternate
            raise Unusable("refused_by_chat_template", str(error)) from error


def _required(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise Unusable(f"no_{key}")
    return value


def _messages(row: Row) -> Messages:
    """Those of a row whose last turn is an answer: the only one that is trained. Earlier answers are context, as the
    prompt's border is where the last one begins; a conversation whose every answer is to be trained is one row each."""
    messages = row["messages"]
    if not isinstance(messages, list) or not all(
        isinstance(message, dict) and isinstance(message.get("content"), str) for message in messages
    ):
        raise Unusable("no_text_messages")
    if not messages or messages[-1].get("role") != "assistant" or not messages[-1]["content"].strip():
        raise Unusable("no_assistant_turn")
    return messages
