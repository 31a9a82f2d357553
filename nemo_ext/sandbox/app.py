"""The sandbox's HTTP routes: what they accept, and how errors read."""

import asyncio
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from nemo_ext.sandbox import access
from nemo_ext.sandbox.config import SandboxConfig
from nemo_ext.sandbox.session import Result
from nemo_ext.sandbox.sessions import Full, Sessions

MAX_BODY_BYTES = 4 << 20
MAX_NAME_CHARS = 200
JSON = "application/json"
LOOK_AFTER_S = 0.5


Outcome = tuple[Result, str, str]
"""What Sessions.execute returns."""


@dataclass(frozen=True)
class Call:
    """A checked body of POST /execute."""

    session: str
    code: str
    timeout_s: float
    history: list[str]


def read_call(body: bytes, config: SandboxConfig) -> Call:
    """Raises ValueError, with what it may be."""
    fields = orjson.loads(body)  # JSONDecodeError is a ValueError
    if not isinstance(fields, dict):
        raise ValueError(f"the body is a {type(fields).__name__}; it must be an object with `session` and `code`")
    if unknown := sorted(set(fields) - {"session", "code", "timeout_s", "history"}):
        raise ValueError(f"unknown: {', '.join(unknown)}; there are session, code, timeout_s, history")
    session, code, history = fields.get("session"), fields.get("code"), fields.get("history", [])
    timeout_s = fields.get("timeout_s", config.max_timeout_s)
    if not isinstance(session, str) or not 0 < len(session) <= MAX_NAME_CHARS:
        raise ValueError(f"session must be text of 1 to {MAX_NAME_CHARS} characters")
    if not isinstance(code, str):
        raise ValueError("code must be text")
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, int | float) or not timeout_s > 0:
        raise ValueError("timeout_s must be a number above 0")
    if not isinstance(history, list) or not all(isinstance(block, str) for block in history):
        raise ValueError("history must be a list of text: the blocks to run again if the session is gone")
    return Call(session, code, min(float(timeout_s), config.max_timeout_s), history)


class Api:
    """Everything but /health needs the token in the header `Authorization: Bearer ...`."""

    def __init__(self, sessions: Sessions, token: str) -> None:
        self.sessions = sessions
        self._token = token

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/execute", self.execute, methods=["POST"]),
                Route("/sessions/{name:path}", self.delete, methods=["DELETE"]),
                Route("/health", self.health),
            ]
        )

    async def execute(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        kind = request.headers.get("content-type", "")
        if kind.partition(";")[0].strip().lower() != JSON:  # any web page may have a browser send the others
            return _json(415, {"error": f"the body's Content-Type is {kind[:100]!r}; it must be {JSON}"})
        body = await _read(request)
        if body is None:
            return _json(413, {"error": f"the body is longer than {MAX_BODY_BYTES} bytes"})
        config = self.sessions.config
        try:
            call = read_call(body, config)
        except ValueError as error:
            return _json(400, {"error": str(error)})
        if any(len(code.encode()) > config.max_code_kb << 10 for code in (call.code, *call.history)):
            text = f"the block is longer than {config.max_code_kb} KB and was not run"
            return _json(200, _reply(Result("error", False, "", False, 0.0), "kept", text))
        try:
            outcome = await _while_connected(
                request, self.sessions.execute(call.session, call.code, call.timeout_s, call.history)
            )
        except Full:
            text = f"all {config.max_sessions} sessions (sandbox.max_sessions) are in use"
            return _json(429, {"error": text}, {"Retry-After": "1"})
        except OSError as error:
            return _json(503, {"error": f"no session could be started: {error}"})
        return _json(200, _reply(*outcome)) if outcome else Response(status_code=499)  # nobody reads it

    def _refused(self, request: Request) -> Response | None:
        if access.allows(request.headers.get("authorization"), self._token):
            return None
        error = "no token, or a wrong one: the header `Authorization: Bearer ...` must hold this sandbox's"
        return _json(401, {"error": error}, {"WWW-Authenticate": "Bearer"})

    async def delete(self, request: Request) -> Response:
        if (refused := self._refused(request)) is not None:
            return refused
        return _json(200, {"deleted": self.sessions.delete(request.path_params["name"])})

    async def health(self, request: Request) -> Response:
        sessions = self.sessions
        return _json(
            200,
            {
                "status": "ok",
                "isolation": sessions.forks.isolation,
                "sessions": sessions.alive,
                "running": len(sessions.running),
                "parallel": sessions.parallel,
                "executions": dict(sessions.executions),
                "limits": asdict(sessions.config),
            },
        )


async def _while_connected(request: Request, call: Coroutine[Any, Any, Outcome]) -> Outcome | None:
    """What `call` returns; None where the client left before that, which cancels it: its session is gone then."""
    caller = asyncio.current_task()
    assert caller is not None, "called from a request"
    leaving: list[asyncio.Task[None]] = []  # begun late: most blocks are done before anybody could leave
    timer = asyncio.get_running_loop().call_later(
        LOOK_AFTER_S, lambda: leaving.append(asyncio.create_task(_left(request, caller)))
    )
    try:
        return await call
    except asyncio.CancelledError:
        if not (leaving and leaving[0].done()):  # it is the service that stops
            raise
        caller.uncancel()
        return None
    finally:
        timer.cancel()
        for task in leaving:
            task.cancel()


async def _left(request: Request, caller: "asyncio.Task[Any]") -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue
    caller.cancel()


async def _read(request: Request) -> bytes | None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _reply(result: Result, state: str, message: str) -> dict[str, Any]:
    return {
        "class": result.ended,
        "output": result.output,
        "message": message,
        "state": state,
        "lost": result.lost,
        "truncated": result.truncated,
        "seconds": round(result.seconds, 6),
    }


def _json(status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, JSON)
