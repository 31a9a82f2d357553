"""One request to one server: its completions, or what went wrong."""

import time
from dataclasses import replace

import aiohttp

from nemo_ext.serving.client import failures
from nemo_ext.serving.client.failures import Failure
from nemo_ext.serving.client.http import ask
from nemo_ext.serving.client.replica import Replica
from nemo_ext.serving.client.reply import Reply, UnusableReply, read_reply
from nemo_ext.serving.client.requests import Completion, Request

BYTES_PER_TOKEN = 256  # in JSON; tokens of many spaces, or of characters that are escaped, take the most
BYTES_BESIDE = 1 << 20
BYTES_PER_PROMPT_BYTE = 512  # of its log-probability, or its vector
BYTES_OF_NUMBERS = 64 << 20


def max_bytes(request: Request) -> int:
    """More than a reply to this request can have."""
    if request.returns != "text":
        prompt = request.prompt if isinstance(request.prompt, str) else "".join(m["content"] for m in request.prompt)
        return BYTES_OF_NUMBERS + BYTES_PER_PROMPT_BYTE * len(prompt)
    return BYTES_BESIDE + BYTES_PER_TOKEN * request.sampling.max_tokens * len(request.keys)


async def attempt(request: Request, replica: Replica, started: float, number: int) -> list[Completion] | Failure:
    """Attempt `number` of a request whose first one began at `started` (time.monotonic); a completion per key."""
    body = request.body(replica.endpoint.model, replica.endpoint.dialect)
    mask = replica.mask
    try:
        status, headers, content = await ask(
            replica.session, "POST", replica.urls[request.path], mask, max_bytes(request), data=body
        )
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        return failures.from_exception(error)
    if status != 200:
        failure = failures.from_status(status, content, headers)
        return replace(failure, message=mask.text(failure.message))
    try:
        reply = read_reply(request, content)
    except UnusableReply as error:
        return failures.bad_reply(content, str(error), error.kind, retry=not error.final)
    if not replica.speaks_for(reply.model):
        return failures.bad_reply(content, f"it is from model {reply.model!r} instead of {replica.reply_model!r}")
    return _completions(request, reply, replica, time.monotonic() - started, number)


def _completions(request: Request, reply: Reply, replica: Replica, seconds: float, attempts: int) -> list[Completion]:
    tokens = split(reply.num_generated_tokens, [len(choice.text) for choice in reply.choices])
    url, seed = replica.endpoint.url, request.sampling.seed
    return [
        Completion(
            key=key, text=choice.text, finish_reason=choice.finish_reason, num_prompt_tokens=reply.num_prompt_tokens,
            num_generated_tokens=tokens[i], seconds=seconds, error=None, attempts=attempts,
            stop_reason=choice.stop_reason, seed=seed, choice=i, replica=url,
        )
        for i, (key, choice) in enumerate(zip(request.keys, reply.choices, strict=True))
    ]  # fmt: skip


def split(total: int | None, lengths: list[int]) -> list[int | None]:
    """`total` tokens over texts in proportion to their lengths; the parts add up to it. Of None, None each."""
    if total is None or len(lengths) == 1:
        return [total] * len(lengths)
    whole, used, given = sum(lengths) or len(lengths), 0, 0
    parts: list[int | None] = []
    for length in lengths:
        used += length if sum(lengths) else 1
        part = total * used // whole - given
        parts.append(part)
        given += part
    return parts
