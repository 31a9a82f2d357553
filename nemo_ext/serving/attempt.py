"""One request to one server: a completion, or what went wrong."""

import time

import aiohttp
import orjson

from nemo_ext.serving import failures
from nemo_ext.serving.failures import Failure
from nemo_ext.serving.replica import Replica
from nemo_ext.serving.requests import Completion, Request


async def attempt(
    session: aiohttp.ClientSession, request: Request, replica: Replica, started: float, number: int
) -> Completion | Failure:
    """Attempt `number` of a request whose first one began at `started` (time.monotonic)."""
    body = request.body(replica.endpoint.model)
    try:
        async with session.post(replica.urls[request.path], data=body, headers=replica.headers) as reply:
            content = await reply.read()
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        return failures.from_exception(error)
    if reply.status != 200:
        return failures.from_status(reply.status, content, reply.headers.get("Retry-After"))
    return _completion(request, content, time.monotonic() - started, number)


def _completion(request: Request, content: bytes, seconds: float, attempts: int) -> Completion | Failure:
    try:
        reply = orjson.loads(content)
        choice, usage = reply["choices"][0], reply["usage"]
        text = choice["text"] if isinstance(request.prompt, str) else choice["message"]["content"] or ""
        counts = usage["prompt_tokens"], usage.get("completion_tokens", 0)
        reason = choice["finish_reason"]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError):
        return failures.bad_reply(content)
    if not isinstance(text, str):
        return failures.bad_reply(content)
    return Completion(request.key, text, reason, *counts, seconds, None, attempts)
