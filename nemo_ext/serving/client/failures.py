"""Failures of one attempt, and what to do about each."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from time import time

import aiohttp
import orjson

ROWS_FAULT = (400, 413, 414, 422, 431, 451)
"""Refusals of what was sent; others, such as of a key (401, 403), are the run's fault and no row's answer."""
TRANSIENT = (408, 409, 425, 429)
OVERLOAD = (408, 429, 503)
MAX_MESSAGE = 2000  # characters of a server's words that are kept


class ClientStopped(RuntimeError):
    """The run cannot go on; what completed was delivered."""


class ServersDown(ClientStopped):
    """No endpoint answered for all_down_s."""


class TooManyFailures(ClientStopped):
    """max_permanent_in_a_row requests failed for good with no success between them."""


class WrongModel(ClientStopped, ValueError):
    """A server has another model than the one that is asked."""


class Refused(ClientStopped):
    """A server refuses whatever it is asked: a wrong key, say, or another address. `kind`: the HTTP status, or bad_reply."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class ServerBusy(ClientStopped):
    """A server asks to be left alone for longer than patience_s."""


class Interrupted(ClientStopped):
    """A signal, whose handler returned, stopped the run."""


@dataclass(frozen=True)
class Failure:
    """`kind` is what the statistics count by; `suspect`: ask the endpoint's /health before using it again;
    `overload`: fewer requests at once may help; `fatal`: it is not this request's fault, and any other would fail too."""

    kind: str
    message: str
    retry: bool
    suspect: bool = False
    retry_after_s: float = 0.0
    overload: bool = False
    fatal: bool = False


def from_status(status: int, body: bytes, headers: Mapping[str, str]) -> Failure:
    """TRANSIENT and 5xx are worth another attempt; ROWS_FAULT are the request's own fault; all others stop the run."""
    message = f"HTTP {status}: {server_message(body)}"
    if status in TRANSIENT or status >= 500:
        suspect = status in (502, 503, 504)
        return Failure(
            str(status), message, True, suspect, retry_after_s(headers.get("Retry-After")), status in OVERLOAD
        )
    if 300 <= status < 400:
        message = (
            f"HTTP {status}: it sends requests on to {headers.get('Location', 'another address')}, where nobody said "
            "that rows may go. Give that address in server.urls if it is right"
        )
    return Failure(str(status), message, retry=False, fatal=status not in ROWS_FAULT)


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


def bad_reply(body: bytes, why: str, kind: str = "bad_reply", retry: bool = True) -> Failure:
    return Failure(kind, f"the reply cannot be used, {why}: {body[:200]!r}", retry)


def server_message(body: bytes) -> str:
    """OpenAI's {"error": {"message": ...}}, vLLM's older {"message": ...}, or the text itself; cut where it is long."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:500].decode(errors="replace")
    error = value.get("error", value) if isinstance(value, dict) else value
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:MAX_MESSAGE]


def retry_after_s(value: str | None) -> float:
    """Seconds, from such or an HTTP date; 0 when absent or unreadable."""
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


def check_patience(url: str, said: str, wait_s: float, waited_s: float, patience_s: float) -> None:
    """Raises ServerBusy when `wait_s` more, which a server asks for, make the waits longer than there is patience for."""
    if waited_s > patience_s:
        until = datetime.now().astimezone() + timedelta(seconds=wait_s)
        raise ServerBusy(
            f"{url} takes no requests until {until:%Y-%m-%d %H:%M:%S %Z} ({said}), and that is longer than "
            f"client.patience_s={patience_s:g}. Run again then, or raise it"
        )
