"""Where a server listens: a small JSON file it writes once it answers, which clients wait for.

    {"url": "http://127.0.0.1:40713", "model": "tiny", "pid": 4711}

Light imports only.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

POLL_S = 0.05
CONCURRENCY = 128


@dataclass(frozen=True)
class Endpoint:
    url: str
    """http(s)://host:port, without /v1."""
    model: str
    """The id to send as `model`."""
    api_key_env: str | None = None
    """NAME of the environment variable with the key."""
    concurrency: int = CONCURRENCY
    """Requests open there at once, at most."""


def wait_for(paths: list[Path], timeout_s: float) -> list[Endpoint]:
    """The endpoints of all address files, in order, once every one of them exists.

    Raises:
        TimeoutError: some are still missing; their services did not become healthy.
    """
    deadline = time.monotonic() + timeout_s
    while missing := [path for path in paths if not path.exists()]:
        if time.monotonic() > deadline:
            names = ", ".join(str(path) for path in missing)
            raise TimeoutError(f"no server after {timeout_s:g} s: {names} missing; look at that service's log")
        time.sleep(POLL_S)
    addresses = [json.loads(path.read_text()) for path in paths]
    return [Endpoint(address["url"], address["model"]) for address in addresses]
