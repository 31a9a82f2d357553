"""generate against a server that answers, refuses, or dies, as told."""

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from recipes import run_stage
from tests.conftest import ROOT
from tests.recipes.stages.conftest import Ran, external, lines, write_config

PROMPT = {"name": "p", "template": "base", "user": "Q: {problem}", "stop": ["\n\n"]}
QUICK = {"max_attempts": 2, "backoff_s": 0.01, "all_down_s": 0.5, "timeout_s": 20}
SEEDS = [{"id": f"r{i}", "problem": f"problem {i}", "problem_source": "math"} for i in range(12)]


def config(model: dict[str, Any], server: dict[str, Any], source: str, **more: Any) -> dict[str, Any]:
    by_source = {"math": {"prompt": PROMPT, "num_samples": 2}}
    sampling = {"temperature": 0.7, "top_p": 0.95, "max_tokens": 50}
    return {
        "model": model,
        "server": server,
        "client": QUICK,
        "input": source,
        "by_source": by_source,
        "sampling": sampling,
        "seed": 5,
        **more,
    }


def answer(body: dict[str, Any]) -> web.Response:
    """What a real server gives: a function of prompt and seed."""
    choice = {"index": 0, "finish_reason": "stop", "text": f"{body['prompt']} / {body['seed']}"}
    return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})


async def always(request: web.Request, index: int) -> web.Response:
    return answer(await request.json())


def test_rows_in_order_with_a_seed_of_their_own(run, rows, model, fake) -> None:
    server = fake(always)
    ran: Ran = run("generate", **config(model, external(server), rows(SEEDS)))
    assert [(row["id"], row["sample_index"]) for row in ran.output] == [
        (f"r{i}", s) for i in range(12) for s in (0, 1)
    ]
    assert len({row["seed"] for row in ran.output}) == 24
    assert ran.output[5]["generation"] == f"Q: problem 2 / {ran.output[5]['seed']}"
    assert (ran.output[0]["num_prompt_tokens"], ran.output[0]["finish_reason"]) == (3, "stop")
    assert ran.manifest["tokens"] == {"prompt": 72, "generated": 48}
    body = server.bodies[0]
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"], body["stop"]) == (
        "fake",
        0.7,
        0.95,
        50,
        ["\n\n"],
    )


def test_more_rows_and_samples_change_no_others(run, rows, model, fake) -> None:
    server = fake(always)
    few = run("generate", **config(model, external(server), rows(SEEDS[6:])))
    many = run("generate", folder="many", **config(model, external(server), rows(SEEDS)))
    assert few.output == many.output[12:]


def test_shards_add_up(run, rows, model, fake) -> None:
    server, source = fake(always), rows(SEEDS)
    whole = run("generate", **config(model, external(server), source))
    parts = [
        run("generate", folder=f"s{i}", **config(model, external(server), source, shard=i, shards=2)) for i in (0, 1)
    ]
    key = lambda row: (row["id"], row["sample_index"])  # noqa: E731
    assert sorted((row for part in parts for row in part.output), key=key) == sorted(whole.output, key=key)


def test_a_refused_row_is_dropped_and_counted(run, rows, model, fake) -> None:
    async def picky(request: web.Request, index: int) -> web.Response:
        body = await request.json()
        if body["prompt"].endswith("problem 3"):
            return web.json_response({"error": {"message": "the prompt is too long"}}, status=400)
        return answer(body)

    ran: Ran = run("generate", **config(model, external(fake(picky)), rows(SEEDS)))
    assert ran.reasons == ["refused_by_server"] * 2 and {row["id"] for row in ran.dropped} == {"r3"}
    assert "the prompt is too long" in ran.dropped[0]["error"]
    assert (len(ran.output), ran.manifest["rows_in"]) == (22, 24)


def test_an_unknown_source_is_named(run, rows, model, fake) -> None:
    row = {"id": "x", "problem": "p", "problem_source": "aops"}
    with pytest.raises(ValueError, match=r"by_source has no 'aops'.*\['math'\]"):
        run("generate", **config(model, external(fake(always)), rows([row])))


def test_a_killed_stage_goes_on_and_ends_as_if_it_had_not_been(run, rows, model, fake, tmp_path: Path) -> None:
    enough = threading.Event()

    async def stall(request: web.Request, index: int) -> web.Response | None:
        if index >= 9:
            enough.set()
            await asyncio.sleep(60)
        return answer(await request.json())

    source = rows(SEEDS)
    stalling = fake(stall)
    path = write_config(tmp_path / "killed", "generate", config(model, external(stalling), source))
    process = subprocess.Popen(
        [sys.executable, "-m", "recipes.run_stage", str(path)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        assert enough.wait(60)
    finally:
        process.kill()
        process.wait()
    stored = len(lines(tmp_path / "killed" / "completions.jsonl"))
    assert 7 <= stored <= 9 and not (tmp_path / "killed" / "output.jsonl").exists()
    server = fake(always)
    resumed: Ran = run("generate", folder="killed", **config(model, external(server), source))
    assert len(server.bodies) == 24 - stored, "what was paid for is not asked again"
    assert resumed.output == run("generate", folder="whole", **config(model, external(server), source)).output


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_stage, "die_with_parent", lambda signum: None)
    return lambda path: run_stage.main(["run_stage", str(path)])


def test_a_dead_server_is_an_error_and_nothing_is_lost(main, run, rows, model, fake, tmp_path: Path) -> None:
    async def dying(request: web.Request, index: int) -> web.Response:
        if index < 6:
            return answer(await request.json())
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    source, server = rows(SEEDS), fake(dying)
    server.health_status = 503
    path = write_config(tmp_path / "out", "generate", config(model, external(server), source))
    assert main(path) == 1
    said = lines_of_error(tmp_path / "out")
    assert str(server.port) in said["error"] or "requests failed" in said["error"]
    assert not (tmp_path / "out" / "output.jsonl").exists() and not (tmp_path / "out" / "_DONE").exists()
    stored = len(lines(tmp_path / "out" / "completions.jsonl"))
    assert stored == 6
    alive = fake(always)
    ran: Ran = run("generate", **config(model, external(alive), source))
    assert len(ran.output) == 24 and len(alive.bodies) == 24 - stored


def lines_of_error(folder: Path) -> dict[str, str]:
    return json.loads((folder / "error.json").read_text())
