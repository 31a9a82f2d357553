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

from nemo_ext.serving.client import complete
from nemo_ext.serving.client_config import ClientConfig
from nemo_ext.serving.failures import Interrupted
from nemo_ext.serving.requests import Request, Sampling
from tests.nemo_ext.serving.conftest import ROOT, StartServer, wait_until
from tests.nemo_ext.serving.fake_server import FakeServer

SAMPLING = Sampling(temperature=1.0, top_p=0.95, top_k=0, max_tokens=8, stop=(), seed=None)


def test_a_signal_runs_the_callers_handler_then_interrupts(fake: Callable[..., FakeServer]) -> None:
    async def behave(request: web.Request, number: int) -> None:
        await asyncio.sleep(60)

    server, seen = fake(behave), []
    previous = signal.signal(signal.SIGTERM, lambda signum, frame: seen.append(signum))
    try:
        threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGTERM)).start()
        with pytest.raises(Interrupted, match="SIGTERM"):
            complete([Request("k", "p", SAMPLING)], [server.endpoint], ClientConfig(), print)
        assert seen == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)  # the caller's handler is back
        assert len(seen) == 2
    finally:
        signal.signal(signal.SIGTERM, previous)


STORING = """
import sys
from pathlib import Path
from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.client import complete
from nemo_ext.serving.client_config import ClientConfig
from nemo_ext.serving.requests import Request, Sampling, request_key
from nemo_ext.serving.store import CompletionStore

sampling = Sampling(1.0, 0.95, 0, 40, (), 7)
with CompletionStore(Path(sys.argv[1])) as store:
    keys = {request_key("tiny", f"Ann has {i}", sampling, 0): f"Ann has {i}" for i in range(300)}
    requests = (Request(key, prompt, sampling) for key, prompt in keys.items() if key not in store)
    try:
        complete(requests, [Endpoint(sys.argv[2], "tiny", concurrency=16)], ClientConfig(), store.append)
    finally:
        print("cleaned up", len(store))
"""


def _storing(path: Path, url: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", STORING, str(path), url], cwd=ROOT, stdout=-1, stderr=-1, text=True)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_a_stopped_client_loses_nothing_and_a_rerun_completes_it(
    start_server: StartServer, tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    """Against the real server, whose seeded answers make the rerun's rows equal to those of a run never stopped."""
    server, path, reference = start_server(), tmp_path / "store.jsonl", tmp_path / "reference.jsonl"
    first = _storing(path, server.url)
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") > 60)
    first.send_signal(signum)
    output, errors = first.communicate(timeout=30)
    assert first.returncode == code, errors
    assert ("cleaned up" in output) == (signum != signal.SIGKILL)
    stored = path.read_bytes().count(b"\n")
    assert 60 < stored < 300
    served = server.gauge("generated_tokens_total")
    for target in (path, reference):
        again = _storing(target, server.url)
        assert again.communicate(timeout=60)[0] == "cleaned up 300\n"
    assert server.gauge("generated_tokens_total") - served < 40 * (600 - stored + 16)
    rows = [{row["key"]: row["text"] for row in map(json.loads, p.open())} for p in (path, reference)]
    assert rows[0] == rows[1]
    assert path.read_bytes().count(b"\n") == 300
