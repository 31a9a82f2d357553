"""A server's address: a small JSON file it writes once it answers, which clients wait for.

    {"url": "http://node1:20713", "host": "node1", "port": 20713, "model": "Llama-3.1-405B-Instruct-FP8",
     "kind": "trtllm", "version": "1.2.1", "pid": 4711}

A service that gives up before it answers writes {"error": "..."} instead. Light imports only.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_S = 0.05
CONCURRENCY = 128
LAST_WORDS_S = 15.0
"""How much longer to wait than a service does: its own message says more than ours."""


@dataclass(frozen=True)
class Dialect:
    """What a server takes of a request, where servers differ."""

    seed: bool = True
    max_tokens_key: str = "max_tokens"
    """max_completion_tokens for those that refuse the older name."""
    rendered_text: bool = False
    """It adds no special token to a text sent with add_special_tokens=false; of others that is not known."""


@dataclass(frozen=True)
class Endpoint:
    url: str
    """http(s)://host:port, without /v1."""
    model: str
    """The id to send as `model`; empty: the one the server lists."""
    api_key_env: str | None = None
    """NAME of the environment variable with the key."""
    concurrency: int = CONCURRENCY
    """Requests open there at once, at most."""
    dialect: Dialect = Dialect()


def served_path(address_file: Path) -> Path:
    """The address file's lasting part: {"kind", "model", "version"} of what served last, kept when the server has gone."""
    return address_file.with_suffix(".served.json")


def wait_for(paths: list[Path], timeout_s: float) -> list[Endpoint]:
    """The endpoints of all address files, in order, once every one of them exists.

    Raises:
        ValueError: a service gave up; with what it said.
        TimeoutError: some are still missing; their services did not become healthy.
    """
    deadline = time.monotonic() + timeout_s + min(LAST_WORDS_S, timeout_s)
    addresses: dict[Path, dict[str, Any]] = {}
    while missing := [path for path in paths if path not in addresses]:
        if time.monotonic() > deadline:
            names = ", ".join(str(path) for path in missing)
            raise TimeoutError(f"no server after {timeout_s:g} s: {names} missing; look at that service's log")
        found = [path for path in missing if path.exists()]
        addresses |= {path: _read(path) for path in found}
        if not found:
            time.sleep(POLL_S)
    return [Endpoint(addresses[path]["url"], addresses[path]["model"]) for path in paths]


def _read(path: Path) -> dict[str, Any]:
    address = json.loads(path.read_text())
    if "error" in address:
        raise ValueError(f"{path.stem} did not start: {address['error']}")
    return dict(address)
