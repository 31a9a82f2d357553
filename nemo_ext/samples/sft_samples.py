"""Rows of any known shape -> token ids and loss masks, a batch at a time. What prepare_sft's workers do."""

import os
from array import array
from dataclasses import dataclass, field, replace
from typing import Self

import jinja2

from nemo_ext.models.chat_tokenizer import ChatTokenizer, sample
from nemo_ext.models.model import Model
from nemo_ext.prompts.prompt import Prompt
from nemo_ext.rows.outside.columns import BadRow, Columns, renamed
from nemo_ext.rows.row import Row, content_id
from nemo_ext.samples import special_tokens, tool_outputs
from nemo_ext.samples.mask_audit import check_sample
from nemo_ext.samples.sft_rows import Training, training_of


@dataclass(frozen=True)
class SampleSettings:
    stage: str
    """What errors call the stage whose settings these are."""
    model: Model
    prompt: Prompt | None
    seq_length: int
    overlong: str
    columns: Columns = field(default_factory=dict)
    keep_incorrect: bool = False
    allowed_special_tokens: tuple[str, ...] = ()
    mask_tool_outputs: bool = False


@dataclass(frozen=True)
class RowBatch:
    """Consecutive rows of one file; a `str` is a line that could not be read."""

    source: str
    first: int
    """The number of its first row in the file, counted from 1."""
    rows: list[Row | str]
    each: int = 1
    """How many of `rows` were made of each row of the file."""

    def name(self, index: int) -> str:
        """What errors call the row at `index`."""
        row = self.rows[index]
        identity = f" (id {row['id']})" if isinstance(row, dict) and row.get("id") else ""
        return f"{self.source} row {self.first + index // self.each}{identity}"


@dataclass(frozen=True)
class Made:
    """A sample on its way between processes: tokens uint32 and loss mask uint8, as bytes."""

    id: str
    tokens: bytes
    loss_mask: bytes
    truncated: bool
    layout: str
    """The columns that it was made of."""
    is_chat: bool
    """A chat template wrote it."""
    end_stripped: bool
    """The row's answer had an end token after it."""
    num_masked: int
    """Tokens of tool outputs in the answer that are not trained."""

    @property
    def prompt(self) -> bytes:
        """Its tokens before the first that is trained, with which an answer begins."""
        return self.tokens[: 4 * self.loss_mask.index(1)]


@dataclass(frozen=True)
class Dropped:
    reason: str
    detail: str | None = None


@dataclass(frozen=True)
class _Texts:
    """A row as text: what is shown, what is trained."""

    prompt: str
    answer: str
    training: Training
    end_stripped: bool
    masked: tuple[tool_outputs.Span, ...]
    """Characters of the answer that are not trained."""


TEMPLATE_REASONS = ("template_error", "refused_by_chat_template")
"""Reasons of rows that the chat template could not take; where it takes none at all, the template itself is wrong."""


class SampleMaker:
    """Turns batches into samples: `maker(batch)` has a Made or a Dropped for every row, in order.

    Raises:
        ValueError: naming the row: its mask would train something else than its answer, a token of it is not in the model's
            vocabulary, it is over-long and overlong is `error`, or a setting is missing that it needs.
    """

    def __init__(self, settings: SampleSettings, tokenizer: ChatTokenizer) -> None:
        self.settings, self.tokenizer = settings, tokenizer
        self._special = special_tokens.finder(tokenizer.special_tokens - set(settings.allowed_special_tokens))
        ids, size = tokenizer.tokenizer.get_vocab().values(), tokenizer.num_embeddings
        self._num_embeddings = size if size is not None and max(ids, default=0) >= size else None

    @classmethod
    def load(cls, settings: SampleSettings) -> Self:
        """Load it in a process that is one of several: one thread each."""
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        return cls(settings, ChatTokenizer(settings.model))

    def __call__(self, batch: RowBatch) -> list[Made | Dropped]:
        rendered = [self._rendered(batch, index) for index in range(len(batch.rows))]
        texts = [text for each in rendered if isinstance(each, _Texts) for text in (each.prompt, each.answer)]
        ids = iter(self.tokenizer.batch_ids(texts))
        return [
            each if isinstance(each, Dropped) else self._made(batch, index, each, next(ids), next(ids))
            for index, each in enumerate(rendered)
        ]

    def _rendered(self, batch: RowBatch, index: int) -> _Texts | Dropped:
        row = batch.rows[index]
        if isinstance(row, str):
            return Dropped("malformed_json")
        try:
            return self._texts(row)
        except BadRow as error:
            return Dropped(str(error), error.detail)
        except RecursionError:
            return Dropped("nested_too_deeply")
        except ValueError as error:
            raise ValueError(f"{batch.name(index)}: {error}") from error

    def _made(
        self, batch: RowBatch, index: int, texts: _Texts, prompt: list[int], answer: list[int]
    ) -> Made | Dropped:
        row, limit, total = batch.rows[index], self.settings.seq_length, len(prompt) + len(answer)
        assert isinstance(row, dict), "only rows are rendered"
        self._require_embeddings(batch, index, prompt + answer)
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
        try:
            masked = self._masked(texts, answer)
            made = sample(prompt, answer, masked)
            check_sample(made, len(prompt), self.tokenizer, truncated, masked)
        except ValueError as error:
            raise ValueError(f"{batch.name(index)}: {error}") from error
        identity = str(row.get("id") or content_id(str(made.tokens)))
        training, tokens = texts.training, array("I", made.tokens).tobytes()
        is_chat = training.messages is not None
        mask = bytes(made.loss_mask)
        return Made(
            identity, tokens, mask, truncated, training.layout, is_chat, texts.end_stripped, num_masked=len(masked)
        )

    def _masked(self, texts: _Texts, answer: list[int]) -> frozenset[int]:
        """Indices in `answer`, which may have been cut, of its tokens that are not trained."""
        if not texts.masked:
            return frozenset()
        ids, offsets = self.tokenizer.ids_and_offsets(texts.answer)
        if ids[: len(answer)] != answer:
            raise ValueError("its tokens differ when their characters are asked for. This is a bug: please report it")
        within = tool_outputs.tokens_within(texts.masked, offsets)
        return frozenset(index for index in within if index < len(answer))

    def _require_embeddings(self, batch: RowBatch, index: int, tokens: list[int]) -> None:
        size = self._num_embeddings
        if size is not None and tokens and max(tokens) >= size:
            token = max(tokens)
            text = self.tokenizer.tokenizer.convert_ids_to_tokens(token)
            raise ValueError(
                f"{batch.name(index)}: the token {text!r} has the id {token}, and "
                f"model {self.tokenizer.name} has embeddings for the ids below {size} (vocab_size in its config.json). "
                "Resize the model's embeddings to its tokenizer, or use the tokenizer that it was trained with"
            )

    def _texts(self, row: Row) -> _Texts:
        settings = self.settings
        row = renamed(row, settings.columns) if settings.columns else row
        if row.get("is_correct") is False and not settings.keep_incorrect:
            raise BadRow("incorrect")
        try:
            training = training_of(row, settings.prompt)
        except BadRow:
            raise
        except ValueError as error:
            raise ValueError(f"stages.{settings.stage}.{error}") from error
        training, end_stripped = self._without_end(training)
        self._refuse_special_tokens(training)
        prompt, answer = self._shown(training)
        masked = tool_outputs.tool_outputs(answer) if settings.mask_tool_outputs else ()
        return _Texts(prompt, answer, training, end_stripped, tuple(masked))

    def _without_end(self, training: Training) -> tuple[Training, bool]:
        """Without the end token that a server left after the answer: another one follows it."""
        answer = training.answer.get("content")
        if not isinstance(answer, str) or (text := self.tokenizer.without_end(answer)) == answer:
            return training, False
        if not text.strip() and not training.answer.get("tool_calls"):
            raise BadRow("no_solution", "the answer is an end token alone")
        return replace(training, answer=training.answer | {"content": text}), True

    def _refuse_special_tokens(self, training: Training) -> None:
        """A special token's text would become that token: an end in the middle of an answer, or a turn of its own."""
        if self._special is None:
            return
        for text in training.texts():
            if found := self._special.search(text):
                raise BadRow(
                    special_tokens.REASON,
                    f"the row's text has {found[0]!r}, which the tokenizer reads as a special token. Where rows are "
                    f"meant to have it: stages.{self.settings.stage}.allowed_special_tokens=[{found[0]!r}]",
                )

    def _shown(self, training: Training) -> tuple[str, str]:
        """(prompt, answer) as text."""
        if training.messages is not None:
            return self._chat_texts(training)
        answer = str(training.answer["content"])
        return (
            ("", answer + self.tokenizer.eos)
            if training.is_whole
            else self.tokenizer.base_texts(training.prompt, answer)
        )

    def _chat_texts(self, training: Training) -> tuple[str, str]:
        self.tokenizer.require_template()
        assert training.messages is not None, "plain text needs no template"
        try:
            return self.tokenizer.chat_texts(training.messages, training.answer, training.tools)
        except jinja2.TemplateError as error:  # such as roles that do not alternate
            raise BadRow("refused_by_chat_template", str(error)) from error
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            IndexError,
        ) as error:  # of the template's own expressions
            raise BadRow("template_error", str(error)) from error
