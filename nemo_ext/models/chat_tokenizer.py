"""Messages -> token ids and loss mask. The only place that uses a chat template for training.

The prompt and the answer are tokenised apart, at the border where generation starts when the model is served: a token
that straddled it in training could never be produced in use.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jinja2
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from nemo_ext.models.chat_template import template_hash
from nemo_ext.models.hub_folder import AnswerEnd
from nemo_ext.models.model import Model, chat_template_path
from nemo_ext.models.template_trial import within_limits

Message = dict[str, Any]
Messages = Sequence[Message]
PROBE = "an answer"
ANSWER_PARTS = ("reasoning_content", "reasoning", "thinking", "tool_calls", "function_call")
"""What an answer may hold besides its text."""
PIECE = 1_000_000  # characters tokenised at once: the tokenizer's own record of them takes some 30 bytes for each


@dataclass(frozen=True)
class Sample:
    """Token ids [L] and, for each, 1 if the model is to learn to produce it."""

    tokens: list[int]
    loss_mask: list[int]


class ChatTokenizer:
    """A model's tokenizer with the chat template it is trained and served with."""

    def __init__(self, model: Model) -> None:
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model.hf_path)
        template = chat_template_path(model)
        if template is not None:
            self.tokenizer.chat_template = template.read_text()
        self.name, self.hf_path = model.name, model.hf_path
        if self.tokenizer.chat_template:
            within_limits(self._render, f"model {self.name}: its chat template")

    def require_template(self) -> None:
        """Raises ValueError when there is none, as with most base models' tokenizers."""
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"model {self.name}: its tokenizer has no chat template. Set model.chat_template to a file of "
                "nemo_ext/models/chat_templates, such as llama3.jinja."
            )

    @property
    def template_hash(self) -> str:
        return template_hash(self.tokenizer.chat_template)

    def count(self, text: str) -> int:
        """Tokens of a plain text, without BOS or EOS."""
        return len(self.ids(text))

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def batch_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """`ids` of many texts, on every core unless TOKENIZERS_PARALLELISM=false."""
        return [ids for piece in _pieces(texts) for ids in self._piece_ids(piece)]

    def _piece_ids(self, texts: list[str]) -> list[list[int]]:
        if not self.tokenizer.is_fast:
            return self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        backend = self.tokenizer.backend_tokenizer  # without character offsets, which nothing needs: a fifth faster
        backend.no_truncation()
        backend.no_padding()
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def ids_and_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """`ids`, and of each the characters of the text that it holds: (first, the one after the last). Tokens that share a
        character, as parts of its bytes, each have it.

        Raises:
            ValueError: the tokenizer is not of the kind that knows.
        """
        encoding = self._exact.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    @cached_property
    def _exact(self) -> Tokenizer:
        """The tokenizer without its post-processor, which may leave spaces out of the characters of a token."""
        if not self.tokenizer.is_fast:
            raise ValueError(
                f"model {self.name}: its tokenizer does not say which characters a token holds; put a tokenizer.json there"
            )
        exact = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        exact.no_truncation()
        exact.no_padding()
        exact.post_processor = processors.ByteLevel(trim_offsets=False)  # for other kinds it does nothing
        return exact

    @property
    def eos(self) -> str:
        """The text of the end-of-sequence token.

        Raises:
            ValueError: the tokenizer has none.
        """
        if not self.tokenizer.eos_token:
            raise ValueError(
                f"model {self.name}: its tokenizer has no EOS token, so that nothing would end a sample of plain text. "
                "Set eos_token in its tokenizer_config.json, or give rows of messages and a chat template."
            )
        return self.tokenizer.eos_token

    @cached_property
    def bos(self) -> str:
        """What the tokenizer puts before a text of its own accord, and so what a server does; "" for nothing."""
        first = self.tokenizer.bos_token_id
        return str(self.tokenizer.bos_token) if first is not None and self.tokenizer.encode("x")[:1] == [first] else ""

    @cached_property
    def num_embeddings(self) -> int | None:
        """How many tokens the model has embeddings for, by its config.json; None where there is none."""
        try:
            config, _ = PretrainedConfig.get_config_dict(self.hf_path)
        except OSError:
            return None
        size = config.get("vocab_size") or config.get("text_config", {}).get("vocab_size")
        return int(size) if size else None

    @cached_property
    def special_tokens(self) -> frozenset[str]:
        """Texts that the tokenizer turns into a special token wherever they stand."""
        added = self.tokenizer.added_tokens_decoder.values()
        return frozenset(token.content for token in added if token.special and token.content)

    def without_end(self, answer: str) -> str:
        """The answer without one end token after it, which servers that show special tokens leave there."""
        text = answer.rstrip()
        for token in (str(self.tokenizer.convert_ids_to_tokens(index)) for index in sorted(self.end_ids)):
            if text.endswith(token):
                return text[: -len(token)]
        return answer

    @cached_property
    def turn_end(self) -> str:
        """What the chat template writes after an answer; "" for nothing, or without a template."""
        if not self.tokenizer.chat_template:
            return ""
        try:
            return self.chat_texts([{"role": "user", "content": "?"}], PROBE)[1].partition(PROBE)[2]
        except (
            ValueError,
            jinja2.TemplateError,
        ):  # rows of text need no template; those that do will raise this again
            return ""

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer: EOS and, where it is one token of its own, the chat template's end of turn."""
        return frozenset(self.answer_end.ids)

    @cached_property
    def answer_end(self) -> AnswerEnd:
        """The same for the files of an exported model. A template that writes `eos_token` keeps the tokenizer's: with
        another one it would write another text than the model was trained on."""
        closing = set(self.ids(self.turn_end)[-1:]) & set(self.tokenizer.get_added_vocab().values())
        ids = [*closing, *({self.tokenizer.eos_token_id} - closing - {None})]
        if not closing or "eos_token" in str(self.tokenizer.chat_template):
            return AnswerEnd(tuple(ids))
        return AnswerEnd(tuple(ids), str(self.tokenizer.convert_ids_to_tokens(ids[0])))

    def chat_texts(self, messages: Messages, answer: str | Message, tools: list[Any] | None = None) -> tuple[str, str]:
        """The text up to where the answer starts, and the answer with its end-of-turn marker.

        Args:
            answer: its text, or the whole last message, which may hold reasoning_content or tool_calls besides.
            tools: descriptions of functions that the template shows.

        Raises:
            ValueError: the template rewrites the prompt once there is an answer, so that no border exists, or the
                answer (some cut off what comes before </think>), or leaves out a part of the messages.
            jinja2.TemplateError: the template does not take these messages.
        """
        last = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
        prompt = self._render(messages, tools, add_generation_prompt=True)
        whole = self._render([*messages, last], tools)
        self._require_shown(messages, last, tools, whole)
        if not whole.startswith(prompt):
            raise ValueError(
                f"model {self.name}: its chat template does not keep the prompt when an answer follows it"
            )
        rendered = whole[len(prompt) :].rstrip("\n")  # ChatML-like templates end a turn with a newline
        text = str(last.get("content") or "").strip()
        if text not in rendered:
            raise ValueError(
                f"model {self.name}: its chat template changes the answer, so that something else would be trained: "
                f"{text[:200]!r} became {rendered[:200]!r}. Set model.chat_template to one that keeps it."
            )
        return prompt, rendered

    def _require_shown(self, messages: Messages, last: Message, tools: list[Any] | None, whole: str) -> None:
        """Raises ValueError when the template leaves out a system turn, tools, tool calls, or what the last message has
        beside a text."""
        parts: list[tuple[str, Messages, list[Any] | None]] = [
            (key, [*messages, {name: value for name, value in last.items() if name != key}], tools)
            for key, value in last.items()
            if key in ANSWER_PARTS and value
        ]
        if tools:
            parts.append(("tools", [*messages, last], None))
        if any(message.get("tool_calls") for message in messages):
            without = [{key: value for key, value in each.items() if key != "tool_calls"} for each in messages]
            parts.append(("tool_calls", [*without, last], tools))
        for text in (str(each.get("content") or "").strip() for each in messages if each.get("role") == "system"):
            if text not in whole:
                raise ValueError(
                    f"model {self.name}: its chat template does not show the system turn {text[:200]!r}. Set "
                    "model.chat_template to one that does, or leave it out of the rows"
                )
        for key, remaining, described in parts:
            if self._render(remaining, described) == whole:
                raise ValueError(
                    f"model {self.name}: its chat template does not show {key}, so that it would not be trained. Set "
                    "model.chat_template to one that does, or leave it out of the rows"
                )

    def _render(self, messages: Messages, tools: list[Any] | None = None, add_generation_prompt: bool = False) -> str:
        text = self.tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=False, add_generation_prompt=add_generation_prompt
        )
        assert isinstance(text, str), "tokenize=False gives text"
        return text

    def base_texts(self, prompt: str, answer: str) -> tuple[str, str]:
        """The same for plain text: BOS where the tokenizer puts one, and EOS after the answer."""
        return self.bos + prompt, answer + self.eos


def _pieces(texts: Sequence[str]) -> Iterator[list[str]]:
    """Runs of texts of at most PIECE characters, or of a single one."""
    piece: list[str] = []
    size = 0
    for text in texts:
        if piece and size + len(text) > PIECE:
            yield piece
            piece, size = [], 0
        piece.append(text)
        size += len(text)
    if piece:
        yield piece


def sample(prompt_ids: list[int], answer_ids: list[int], masked: Collection[int] = ()) -> Sample:
    """Train on the answer alone, but for its tokens at the indices `masked`."""
    trained = [1] * len(answer_ids)
    for index in masked:
        trained[index] = 0
    return Sample(prompt_ids + answer_ids, [0] * len(prompt_ids) + trained)
