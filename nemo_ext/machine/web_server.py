"""uvicorn for services of ours whose work must end before their sockets do."""

from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

KEEP_ALIVE_S = 300


class WebServer(uvicorn.Server):
    """Leaves signals to the caller, where uvicorn would close its sockets at the first SIGTERM."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def web_server(application: Starlette, grace_s: int) -> WebServer:
    """`grace_s`: how long requests in flight may take once `should_exit` is set."""
    return WebServer(
        uvicorn.Config(
            application,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=grace_s,
            backlog=4096,
        )
    )
