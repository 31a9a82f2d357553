"""Signals and kills: the client stops cleanly, and a rerun completes what is missing."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from nemo_ext.serving.client.client import complete
from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.client.failures import Interrupted
from nemo_ext.serving.client.requests import Request, Sampling
from tests.nemo_ext.serving.conftest import ROOT, Running
from tests.nemo_ext.serving.fake_server import FakeServer

SAMPLING = Sampling(temperature=1.0, top_p=0.95, top_k=0, max_tokens=8, stop=(), seed=None)


def test_a_signal_runs_the_callers_handler_then_interrupts(fake: Callable[..., FakeServer]) -> None:
    async def behave(request: web.Request, number: int) -> None:
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGTERM)
        await asyncio.sleep(60)

    server, seen = fake(behave), []
    previous = signal.signal(signal.SIGTERM, lambda signum, frame: seen.append(signum))
    try:
        with pytest.raises(Interrupted, match="SIGTERM"):
            complete([Request("k", "p", SAMPLING)], [server.endpoint], ClientConfig(), print)
        assert seen == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)  # the caller's handler is back
        assert len(seen) == 2
    finally:
        signal.signal(signal.SIGTERM, previous)


STORING = """
import os, sys
from pathlib import Path
from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.client.client import complete
from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.client.requests import Request, Sampling, request_key
from nemo_ext.serving.completions.completion_store import CompletionStore

sampling, stop_by = Sampling(1.0, 0.95, 0, 40, (), 7), int(sys.argv[3])

def keep(completions):
    store.append(completions)
    if stop_by and len(store) == 60:
        os.kill(os.getpid(), stop_by)

with CompletionStore(Path(sys.argv[1])) as store:
    keys = {request_key("tiny", f"Ann has {i}", sampling, 0): f"Ann has {i}" for i in range(300)}
    requests = (Request(key, prompt, sampling) for key, prompt in keys.items() if key not in store)
    try:
        complete(requests, [Endpoint(sys.argv[2], "tiny", concurrency=16)], ClientConfig(), keep)
    finally:
        print("cleaned up", len(store))
"""


def _store(path: Path, url: str, stop_by: int = 0) -> "subprocess.CompletedProcess[str]":
    """Store 300 completions; with `stop_by` send itself that signal when 60 are there."""
    argv = [sys.executable, "-c", STORING, str(path), url, str(int(stop_by))]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def _texts(path: Path) -> dict[str, str]:
    return {row["key"]: row["text"] for row in map(json.loads, path.open())}


@pytest.fixture(scope="module")
def never_stopped(shared_server: Running, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("reference") / "store.jsonl"
    assert _store(path, shared_server.url).stdout == "cleaned up 300\n"
    return _texts(path)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_a_stopped_client_loses_nothing_and_a_rerun_completes_it(
    shared_server: Running, never_stopped: dict[str, str], tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    """Against the real server, whose seeded answers make the rerun's rows equal to those of a run never stopped."""
    server, path = shared_server, tmp_path / "store.jsonl"
    first = _store(path, server.url, signum)
    assert first.returncode == code, first.stderr
    assert ("cleaned up" in first.stdout) == (signum != signal.SIGKILL)
    stored = path.read_bytes().count(b"\n")
    assert 60 <= stored < 300
    served = server.gauge("generated_tokens_total")
    assert _store(path, server.url).stdout == "cleaned up 300\n"
    assert server.gauge("generated_tokens_total") - served < 40 * (300 - stored + 16)
    assert _texts(path) == never_stopped
    assert path.read_bytes().count(b"\n") == 300
