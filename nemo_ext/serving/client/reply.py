"""Read a server's reply: texts, why each ended, and how many tokens were counted.

Servers differ a little from OpenAI's format. What is certain is taken: a content given as a list of texts, choices
without an index, which are then in order, and token counts that are left out, which are then unknown.
"""

from typing import Any, NamedTuple

import orjson

from nemo_ext.serving.client.requests import Request

ENDS = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "end_turn": "stop", "stop_sequence": "stop", "length": "length",
    "max_tokens": "length", "model_length": "length", "tool_calls": "tool_calls", "function_call": "function_call",
}  # fmt: skip
"""How servers say that a choice is complete -> how it is stored. Others (vLLM's "abort" on shutdown) name no answer."""
FILTERED = "content_filter"
TEXT_PARTS = ("text", "output_text")


class UnusableReply(ValueError):
    """Why a reply is not an answer; `kind` as in failures.Failure; `final`: asked again, it would be the same."""

    def __init__(self, message: str, kind: str = "bad_reply", final: bool = False) -> None:
        super().__init__(message)
        self.kind = kind
        self.final = final


class Choice(NamedTuple):
    text: str
    finish_reason: str
    stop_reason: str | int | None = None


class Reply(NamedTuple):
    choices: list[Choice]
    """The choices, in the order of their index."""
    num_prompt_tokens: int | None
    """None: the server does not say."""
    num_generated_tokens: int | None
    """Generated tokens of all choices together; None: the server does not say, or cannot have counted them all."""
    model: str | None
    counts: bool
    """Whether it names a number of generated tokens at all."""


def read_reply(request: Request, content: bytes) -> Reply:
    """Raises UnusableReply when there is no answer in it."""
    try:
        reply = orjson.loads(content)
        choices = _read(request, reply)
    except UnusableReply:
        raise
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise UnusableReply("it is not a completion") from error
    if len(choices) != len(request.keys):
        raise UnusableReply(f"{len(choices)} choices instead of {len(request.keys)}")
    usage = reply.get("usage")
    prompt, generated = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    counts = generated is not None
    if request.returns != "text":
        generated = generated or 0
    elif generated is not None and generated < _fewest(request, choices):
        generated = None
    model = reply.get("model")
    return Reply(choices, prompt, generated, model if isinstance(model, str) else None, counts)


def _count(usage: Any, name: str) -> int | None:
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if type(count) is int and count >= 0 else None


def _fewest(request: Request, choices: list[Choice]) -> int:
    """Tokens that all choices together have at least: some servers (llama.cpp) count those of one choice alone."""
    if len(choices) == 1:
        return 0
    cut = sum(choice.finish_reason == "length" for choice in choices)
    return cut * request.sampling.max_tokens + sum(
        bool(choice.text) for choice in choices if choice.finish_reason != "length"
    )


def _read(request: Request, reply: dict[str, Any]) -> list[Choice]:
    if request.returns == "pooling":
        return [_pooled(reply)]
    if request.returns == "logprobs":
        values = reply["choices"][0]["logprobs"]["token_logprobs"]
        return [_numbers(values[1:-1])]  # without the first token and the generated one
    return _choices(reply["choices"], isinstance(request.prompt, str))


def _pooled(reply: dict[str, Any]) -> Choice:
    """The last token's numbers: `data` is theirs, or, where every token is pooled, a list of all tokens'.

    Raises:
        KeyError, IndexError, TypeError, ValueError: not what vLLM's /pooling answers.
    """
    values = reply["data"][0]["data"]
    while isinstance(values, list) and isinstance(values[-1], list):
        values = values[-1]
    return _numbers(values if isinstance(values, list) else [values])


def _numbers(values: list[Any]) -> Choice:
    return Choice(orjson.dumps([float(value) for value in values]).decode(), "stop")


def _choices(raw: list[dict[str, Any]], text_completion: bool) -> list[Choice]:
    return [
        Choice(
            _text(choice["text"] if text_completion else choice["message"]["content"]),
            _ended(choice.get("finish_reason")),
            choice.get("stop_reason"),
        )
        for choice in _in_order(raw)
    ]


def _in_order(raw: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The choices by index; as they stand where a server numbers none of them, or all 0."""
    if len(raw) == 1 and raw[0].get("index") in (0, None):
        return raw
    given: list[Any] = [choice.get("index") for choice in raw]
    if not any(given):  # null or 0
        return raw
    if sorted(given) != list(range(len(raw))):
        raise UnusableReply("the indices are not 0, 1, ...")
    return sorted(raw, key=lambda choice: int(choice["index"]))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        return ""
    parts = [part if isinstance(part, dict) else {"type": type(part).__name__} for part in content]
    others = sorted({str(part.get("type")) for part in parts if part.get("type") not in TEXT_PARTS})
    if others:
        raise UnusableReply(f"its content has parts of type {', '.join(others)} beside text", final=True)
    return "".join(str(part["text"]) for part in parts)


def _ended(reason: Any) -> str:
    known = ENDS.get(reason) if isinstance(reason, str) else None
    if known is None and isinstance(reason, str):
        known = ENDS.get(reason.lower())
    if known is None:
        filtered = reason == FILTERED
        what = (
            "the server withheld a part of it" if filtered else "the server broke it off, or does not say how it ended"
        )
        raise UnusableReply(
            f"its finish_reason is {reason!r}: {what}", str(reason or "unfinished")[:40], final=filtered
        )
    return known
