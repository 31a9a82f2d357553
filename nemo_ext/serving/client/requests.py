"""Requests and completions, independent of which server answers."""

import hashlib
import zlib
from dataclasses import dataclass, fields
from typing import Any, Literal

import orjson

from nemo_ext.serving.address import Dialect

Prompt = str | list[dict[str, str]]


@dataclass(frozen=True)
class Sampling:
    """temperature 0 is greedy; top_k 0 keeps all; what is empty, and a `seed` of None, is not sent."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    stop: tuple[str, ...]
    seed: int | None
    stop_token_ids: tuple[int, ...] = ()
    """Tokens that end the answer besides those that the model's files name."""


@dataclass(frozen=True)
class Request:
    key: str
    """Comes back with the completion; see `request_key`."""
    prompt: Prompt
    """Text goes to /v1/completions, messages to /v1/chat/completions."""
    sampling: Sampling
    rendered: bool = False
    """The prompt already holds every special token, BOS too: the server must add none."""
    prompt_ids: tuple[int, ...] = ()
    """A text prompt's token ids, sent in its place where there are any."""
    more_keys: tuple[str, ...] = ()
    """Keys of further samples of the same prompt, asked for in the same request (the API's `n`)."""
    returns: Literal["text", "pooling", "logprobs"] = "text"
    """pooling: what the model makes of the prompt's last token, from vLLM's /pooling: a reward model's outputs. logprobs:
    those of the prompt's tokens after the first, by `echo`; the prompt must be text. Of both the completion's text is a
    JSON list of numbers."""

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key, *self.more_keys)

    @property
    def path(self) -> str:
        if self.returns == "pooling":
            return "/pooling"
        return "/v1/completions" if isinstance(self.prompt, str) else "/v1/chat/completions"

    def body(self, model: str, dialect: Dialect) -> bytes:
        if self.returns == "pooling":
            return orjson.dumps({"model": model, "input" if isinstance(self.prompt, str) else "messages": self.prompt})
        sampling = self.sampling
        body: dict[str, Any] = {
            "model": model,
            "prompt" if isinstance(self.prompt, str) else "messages": self.prompt_ids or self.prompt,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            dialect.max_tokens_key: sampling.max_tokens,
        }
        if sampling.top_k > 0:
            body["top_k"] = sampling.top_k
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.stop_token_ids:
            body["stop_token_ids"] = list(sampling.stop_token_ids)
        if sampling.seed is not None and dialect.seed:
            body["seed"] = sampling.seed
        if self.more_keys:
            body["n"] = len(self.keys)
        if self.returns == "logprobs":  # 1: SGLang takes 0 for none
            body |= {"echo": True, "logprobs": 1, dialect.max_tokens_key: 1, "temperature": 0.0}
        if self.rendered and not self.prompt_ids:
            body["add_special_tokens"] = False
        return orjson.dumps(body)


@dataclass(frozen=True)
class Completion:
    key: str
    text: str
    finish_reason: str | None
    """stop, length, tool_calls or function_call; None with an error."""
    num_prompt_tokens: int | None
    """None: the server does not count."""
    num_generated_tokens: int | None
    """Of a request for several samples servers count the sum only: it is then split by the length of the texts. None
    where they do not count, or those of one sample alone."""
    seconds: float
    """Time from the first attempt to the reply, waits included."""
    error: str | None
    """The server's message when it refused the request for good, or the last failure when attempts ran out."""
    attempts: int
    """0: a loop found that it need not be asked for."""
    error_kind: str | None = None
    """The kind of an error: the HTTP status, connect, timeout, ... as failures.py names them, or prompt_too_long."""
    retryable: bool = False
    """The attempts of a failed request ran out, so a later run may succeed; do not store it as an answer."""
    stop_reason: str | int | None = None
    """The stop string (or token id) that ended it, where the server says; None for end of sequence, or not said."""
    seed: int | None = None
    """The request's; the samples of one request share it and differ in `choice`."""
    choice: int = 0
    replica: str | None = None
    """URL of the server that answered."""
    trace: dict[str, Any] | None = None
    """What a tool loop did: executions, errors by class, why it ended (nemo_ext/sandbox/tool_loop.py)."""

    @property
    def answer(self) -> dict[str, Any]:
        """The keys that every row gets with its answer."""
        return {
            "generation": self.text,
            "finish_reason": self.finish_reason,
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_generated_tokens": self.num_generated_tokens,
        }


FIELDS = {each.name for each in fields(Completion)}


def line_of(completion: Completion) -> bytes:
    """The completion's line in completions.jsonl: its keys, and at the end the CRC-32 of all before it."""
    content = orjson.dumps(completion)[:-1]
    return b'%b,"crc32":%d}\n' % (content, zlib.crc32(content))


def stored_row(line: bytes) -> dict[str, Any]:
    """The keys of such a line.

    Raises:
        ValueError: the line is not a stored completion, or was edited: an edited text would pass for the model's.
    """
    row = orjson.loads(line)
    content = line.rpartition(b',"crc32":')[0]
    if not isinstance(row, dict) or row.get("crc32") != zlib.crc32(content) or not isinstance(row.get("key"), str):
        raise ValueError(f"not what was stored: {line[:80]!r}")
    return row


def completion_of(line: bytes) -> Completion:
    """What such a line holds; keys that are no fields of ours are left out."""
    row = orjson.loads(line)
    return Completion(**{name: value for name, value in row.items() if name in FIELDS})


def request_key(model: str, prompt: Prompt, sampling: Sampling, sample_index: int, variant: str = "") -> str:
    """32 hex digits that identify one sample: equal for equal content, whatever the order of rows or shards.

    `model`: what stands for its content; by its name, a model made anew would be given the old one's completions.
    `variant`: what else decides the result, such as the settings of a tool loop.
    """
    content = {"model": model, "prompt": prompt, "sampling": sampling, "sample_index": sample_index}
    if variant:
        content["variant"] = variant
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
