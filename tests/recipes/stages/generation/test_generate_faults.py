"""generate against servers that break at random, and killed at random: nothing lost, nothing doubled, no hand edit."""

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.nemo_ext.serving.faulty_server import MODEL, Server, answer_text, servers
from tests.recipes.conftest import Ran, lines, write_config

COUNT, SAMPLES = 1000, 2
PROMPT = {"name": "p", "template": "base", "user": "Q: {problem}"}


def _config(urls: list[str], source: str, **more: Any) -> dict[str, Any]:
    return {
        "model": {"name": MODEL, "hf_path": MODEL, "context_length": 4096},
        "server": {"kind": "external", "urls": urls, "model": MODEL, "concurrency": 32},
        "client": {"timeout_s": 2.0, "backoff_s": 0.02, "all_down_s": 20, "health_interval_s": 0.5},
        "input": source,
        "by_source": {"math": {"prompt": PROMPT, "num_samples": SAMPLES}},
        "sampling": {"temperature": 1.0, "max_tokens": 50},
        "seed": 5,
        **more,
    }


def _rows(count: int, refused_every: int = 0) -> list[dict[str, Any]]:
    problem = lambda i: f"refuse me {i}" if refused_every and i % refused_every == 7 else f"problem {i}"  # noqa: E731
    return [{"id": f"r{i}", "problem": problem(i), "problem_source": "math"} for i in range(count)]


def _check(ran: Ran, expected_dropped: set[str]) -> None:
    samples = Counter((row["id"], row["sample_index"]) for row in [*ran.output, *ran.dropped])
    assert len(samples) == COUNT * SAMPLES == samples.total(), "every sample ends exactly once"
    assert {row["id"] for row in ran.dropped} == expected_dropped
    assert all(row["generation"] == answer_text(f"Q: {row['problem']}", row["seed"]) for row in ran.output)


@pytest.mark.parametrize("samples_per_request", [1, 2])
def test_faults_of_every_kind(run, rows, samples_per_request: int) -> None:
    """One request in twenty breaks in one of seven ways, one row in 200 is refused for good."""
    with servers(2, lambda: Server(share=0.05)) as started:
        urls = [server.url for server in started]
        data = _rows(COUNT, refused_every=200)
        ran: Ran = run("generate", **_config(urls, rows(data), samples_per_request=samples_per_request))
    refused = {row["id"] for row in data if "refuse me" in row["problem"]}
    assert len(refused) == COUNT // 200
    assert set(ran.reasons) == {"refused_by_server"}
    samples = Counter((row["id"], row["sample_index"]) for row in [*ran.output, *ran.dropped])
    assert len(samples) == COUNT * SAMPLES == samples.total(), "every sample ends exactly once"
    assert {row["id"] for row in ran.dropped} == refused
    for row in ran.output:
        assert row["generation"] == answer_text(f"Q: {row['problem']}", row["seed"], row.get("choice", 0))
    retries = ran.manifest["figures"]["retries"]
    assert {"500", "reset", "timeout", "truncated", "bad_reply"} <= retries.keys()


@pytest.mark.parametrize("kills", [15, pytest.param(50, marks=pytest.mark.soak)])
def test_killed_at_random_moments(run, rows, tmp_path: Path, kills: int) -> None:
    """SIGKILL from its first instant on, again and again, until what is left fits between two kills."""
    chance = random.Random(1)
    with servers(2, lambda: Server(delay_s=0.03)) as started:
        config = _config([server.url for server in started], rows(_rows(COUNT)))
        path = write_config(tmp_path / "out", "generate", config)
        completions = tmp_path / "out" / "completions.jsonl"
        stored: set[str] = set()
        for kill in range(kills):
            argv = [sys.executable, "-m", "recipes.run_stage", str(path)]
            process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
            if kill % 3 == 0:  # the machine may be slow: these are killed while they store
                _wait_for_growth(process, completions)
            time.sleep(chance.uniform(0.0, 0.1 if kill % 3 == 0 else 0.7))
            process.kill()
            process.wait()
            whole = completions.read_bytes().rpartition(b"\n")[0].split(b"\n") if completions.exists() else []
            now = {line[8:40].decode() for line in whole if line}
            assert stored <= now, "what was stored stays stored"
            stored = now
        assert len(stored) > 0
        ran: Ran = run("generate", **config)
        _check(ran, expected_dropped=set())
    keys = Counter(row["key"] for row in lines(completions))
    assert len(keys) == COUNT * SAMPLES == keys.total(), "none was asked for twice"


def _wait_for_growth(process: "subprocess.Popen[bytes]", path: Path) -> None:
    size = path.stat().st_size if path.exists() else 0
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        if path.exists() and path.stat().st_size > size:
            return
        time.sleep(0.01)
