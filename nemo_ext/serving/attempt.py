"""One request to one server: its completions, or what went wrong."""

import time
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from nemo_ext.serving import failures
from nemo_ext.serving.failures import Failure
from nemo_ext.serving.replica import Replica
from nemo_ext.serving.requests import Completion, Request


@dataclass(frozen=True)
class _Choice:
    text: str
    finish_reason: str | None
    stop_reason: str | int | None


async def attempt(request: Request, replica: Replica, started: float, number: int) -> list[Completion] | Failure:
    """Attempt `number` of a request whose first one began at `started` (time.monotonic); a completion per key."""
    body = request.body(replica.endpoint.model)
    try:
        async with replica.session.post(replica.urls[request.path], data=body) as reply:
            content = await reply.read()
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        return failures.from_exception(error)
    if reply.status != 200:
        return failures.from_status(reply.status, content, reply.headers.get("Retry-After"))
    return _completions(request, content, replica, time.monotonic() - started, number)


def _completions(
    request: Request, content: bytes, replica: Replica, seconds: float, attempts: int
) -> list[Completion] | Failure:
    try:
        reply = orjson.loads(content)
        choices = _read(request, reply)
        num_prompt, num_generated = reply["usage"]["prompt_tokens"], reply["usage"].get("completion_tokens", 0)
        model = reply.get("model")
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError, ValueError):
        return failures.bad_reply(content)
    if len(choices) != len(request.keys):
        return failures.bad_reply(content, f"{len(choices)} choices instead of {len(request.keys)}")
    if not replica.speaks_for(model):
        return failures.bad_reply(content, f"it is from model {model!r} instead of {replica.reply_model!r}")
    tokens = split(num_generated, [len(choice.text) for choice in choices])
    url, seed = replica.endpoint.url, request.sampling.seed
    return [
        Completion(
            key=key, text=choice.text, finish_reason=choice.finish_reason, num_prompt_tokens=num_prompt,
            num_generated_tokens=tokens[i], seconds=seconds, error=None, attempts=attempts,
            stop_reason=choice.stop_reason, seed=seed, choice=i, replica=url,
        )
        for i, (key, choice) in enumerate(zip(request.keys, choices, strict=True))
    ]  # fmt: skip


def _read(request: Request, reply: dict[str, Any]) -> list[_Choice]:
    if request.returns == "pooling":
        return [_pooled(reply)]
    if request.returns == "logprobs":
        values = reply["choices"][0]["logprobs"]["token_logprobs"]
        return [_numbers(values[1:-1])]  # without the first token and the generated one
    return _choices(reply["choices"], isinstance(request.prompt, str))


def _pooled(reply: dict[str, Any]) -> _Choice:
    """The last token's numbers: `data` is theirs, or, where every token is pooled, a list of all tokens'.

    Raises:
        KeyError, IndexError, TypeError, ValueError: not what vLLM's /pooling answers.
    """
    values = reply["data"][0]["data"]
    while isinstance(values, list) and isinstance(values[-1], list):
        values = values[-1]
    return _numbers(values if isinstance(values, list) else [values])


def _numbers(values: list[Any]) -> _Choice:
    return _Choice(orjson.dumps([float(value) for value in values]).decode(), "stop", None)


def _choices(raw: list[dict[str, Any]], text_completion: bool) -> list[_Choice]:
    """In the order of their index.

    Raises:
        KeyError, TypeError, ValueError: not what the API promises.
    """
    ordered = sorted(raw, key=lambda choice: choice.get("index", 0))
    if [choice.get("index", i) for i, choice in enumerate(ordered)] != list(range(len(ordered))):
        raise ValueError("the indices are not 0, 1, ...")
    choices = []
    for choice in ordered:
        text = choice["text"] if text_completion else choice["message"]["content"] or ""
        if not isinstance(text, str):
            raise TypeError("a text that is none")
        choices.append(_Choice(text, choice["finish_reason"], choice.get("stop_reason")))
    return choices


def split(total: int, lengths: list[int]) -> list[int]:
    """`total` tokens over texts in proportion to their lengths; the parts add up to it."""
    if len(lengths) == 1:
        return [total]
    whole, used, given, parts = sum(lengths) or len(lengths), 0, 0, []
    for length in lengths:
        used += length if sum(lengths) else 1
        parts.append(total * used // whole - given)
        given += parts[-1]
    return parts
