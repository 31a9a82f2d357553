"""What can go wrong with one attempt, and what to do about it."""

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time

import aiohttp
import orjson


class ClientStopped(RuntimeError):
    """The run cannot go on; what completed was delivered."""


class ServersDown(ClientStopped):
    """No endpoint answered for all_down_s."""


class TooManyFailures(ClientStopped):
    """max_permanent_in_a_row requests failed for good with no success between them."""


class WrongModel(ClientStopped, ValueError):
    """A server has another model than the one that is asked."""


class Interrupted(ClientStopped):
    """A signal, whose handler returned, stopped the run."""


@dataclass(frozen=True)
class Failure:
    """`kind` is what the statistics count by; `suspect`: ask the endpoint's /health before using it again;
    `overload`: fewer requests at once may help."""

    kind: str
    message: str
    retry: bool
    suspect: bool = False
    retry_after_s: float = 0.0
    overload: bool = False


def from_status(status: int, body: bytes, retry_after: str | None) -> Failure:
    """408, 429 and 5xx are transient; every other refusal is the request's own fault."""
    message = f"HTTP {status}: {_server_message(body)}"
    if status in (408, 429) or status >= 500:
        suspect = status in (502, 503, 504)
        return Failure(str(status), message, True, suspect, _retry_after(retry_after), status in (408, 429, 503))
    return Failure(str(status), message, retry=False)


def from_exception(error: aiohttp.ClientError | OSError) -> Failure:
    """The connection could not be made, broke, or took too long (TimeoutError is an OSError)."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, TimeoutError):
        text = text if str(error) else "no answer within client.timeout_s"
        return Failure("timeout", text, retry=True, suspect=True, overload=True)
    if isinstance(error, aiohttp.ClientConnectorError):
        return Failure("connect", text, retry=True, suspect=True)
    if isinstance(error, aiohttp.ClientPayloadError):
        return Failure("truncated", text, retry=True)
    return Failure("reset", text, retry=True, suspect=True)


def bad_reply(body: bytes, why: str = "it is not a completion") -> Failure:
    return Failure("bad_reply", f"the reply cannot be used, {why}: {body[:200]!r}", retry=True)


def _server_message(body: bytes) -> str:
    """OpenAI's {"error": {"message": ...}}, vLLM's older {"message": ...}, or the text itself."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:500].decode(errors="replace")
    error = value.get("error", value) if isinstance(value, dict) else value
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)


def _retry_after(value: str | None) -> float:
    """Seconds or an HTTP date; 0 when absent or unreadable."""
    if not value:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return 0.0
