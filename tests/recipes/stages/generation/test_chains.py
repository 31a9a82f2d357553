"""Questions in a chain: across stages, where samples are asked about again, and inside one."""

import asyncio
import re
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from tests.conftest import ROOT
from tests.recipes.conftest import Ran, external, lines, write_config
from tests.recipes.stages.generation.test_generate import QUICK, always, answer

ROWS = [{"id": f"r{i}", "problem": f"P{i}", "problem_source": "math"} for i in range(4)]


def _prompt(name: str, user: str) -> dict[str, Any]:
    return {"name": name, "template": "base", "user": user, "stop": []}


def _keys(model: dict[str, Any], server: Any, source: str, user: str, samples: int, **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "server": external(server),
        "client": QUICK,
        "input": source,
        "by_source": {"*": {"prompt": _prompt("last", user), "num_samples": samples}},
        "sampling": {"temperature": 0.7, "max_tokens": 50},
        **more,
    }


def _sample(row: dict[str, Any]) -> tuple[str, int]:
    return row["id"], row["sample_index"]


@pytest.mark.parametrize("user", ["Again: {problem}", "Better: {generation}"])
def test_samples_of_samples_are_each_their_own(run, rows, model, fake, user: str) -> None:
    """Also where the question is the same for all samples of a row."""
    server = fake(always)
    first = run("generate", "first", **_keys(model, server, rows(ROWS), "Q: {problem}", 2))
    asked = len(server.bodies)
    second = run("generate", "second", **_keys(model, server, str(first.folder), user, 3))
    assert Counter(map(_sample, second.output)) == {(f"r{i}", index): 1 for i in range(4) for index in range(6)}
    assert len(server.bodies) - asked == 24 == len({(body["prompt"], body["seed"]) for body in server.bodies[asked:]})
    assert len({row["generation"] for row in second.output}) == 24
    before = {_sample(row): row for row in first.output}
    for row in second.output:
        old = before[row["id"], row["earlier"]["sample_index"]]
        assert row["earlier"] == {key: old[key] for key in row["earlier"]} and "generation" in row["earlier"]
        assert row["sample_index"] // 3 == old["sample_index"]


def test_more_samples_leave_the_others_as_they_are(run, rows, model, fake, tmp_path: Path) -> None:
    server = fake(always)
    first = run("generate", "first", **_keys(model, server, rows(ROWS), "Q: {problem}", 2))
    three = run("generate", "second", **_keys(model, server, str(first.folder), "Again: {problem}", 3))
    asked = len(server.bodies)
    (tmp_path / "second").rename(tmp_path / "second.old1")
    four = run("generate", "second", **_keys(model, server, str(first.folder), "Again: {problem}", 4))
    assert len(server.bodies) - asked == 8, "one more of each"
    assert {row["generation"] for row in three.output} < {row["generation"] for row in four.output}


def test_what_a_row_said_of_its_old_solution_is_not_said_of_the_new_one(run, rows, model, fake) -> None:
    old = {"generated_solution": "old", "generation": None, "is_correct": True, "reward": 0.5, "choice": 3}
    ran = run("generate", **_keys(model, fake(always), rows([ROWS[0] | old]), "Q: {problem}", 1))
    (row,) = ran.output
    assert row["earlier"] == {key: value for key, value in old.items() if value is not None}
    assert not row.keys() & {"generated_solution", "is_correct", "reward", "choice"} and row["sample_index"] == 0


def test_a_sample_index_that_is_none(run, rows, model, fake) -> None:
    server = fake(always)
    with pytest.raises(ValueError, match="row 'r0': sample_index='a'; .*leave it out"):
        run("generate", **_keys(model, server, rows([ROWS[0] | {"sample_index": "a"}]), "Q: {problem}", 1))
    assert not server.bodies


def test_items_of_a_list_begin_anew(run, rows, model, fake) -> None:
    given = [ROWS[0] | {"generation": "1. a\n2. b", "sample_index": index} for index in range(2)]
    items = run("parse_replies", "items", input=rows(given), parser="numbered_list", to="topic")
    assert [row["made_of_sample"] for row in items.output] == [0, 0, 1, 1]
    ran = run("generate", **_keys(model, fake(always), str(items.folder), "Q: {topic}", 2))
    assert [row["sample_index"] for row in ran.output] == [0, 1] * 4 and len({_sample(row) for row in ran.output}) == 8


def _kill(path: Path, enough: threading.Event) -> None:
    argv = [sys.executable, "-m", "recipes.run_stage", str(path)]
    process = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        assert enough.wait(60)
    finally:
        process.kill()
        process.wait()


def _stalls_after(count: int) -> tuple[Any, threading.Event]:
    enough = threading.Event()

    async def stall(request: web.Request, index: int) -> web.Response | None:
        if index >= count:
            enough.set()
            await asyncio.sleep(60)
        return answer(await request.json())

    return stall, enough


def test_samples_of_samples_after_a_kill(run, rows, model, fake, tmp_path: Path) -> None:
    first = run("generate", "first", **_keys(model, fake(always), rows(ROWS), "Q: {problem}", 2))
    stall, enough = _stalls_after(9)
    keys = _keys(model, fake(stall), str(first.folder), "Again: {problem}", 3)
    _kill(write_config(tmp_path / "killed", "generate", keys), enough)
    stored = len(lines(tmp_path / "killed" / "completions.jsonl"))
    server = fake(always)
    keys = _keys(model, server, str(first.folder), "Again: {problem}", 3)
    resumed = run("generate", "killed", **keys)
    assert 0 < stored < 24 and len(server.bodies) == 24 - stored
    assert resumed.output == run("generate", "whole", **keys).output


CHAIN = {
    "draft": {"prompt": _prompt("draft", "Draft: {problem}"), "max_tokens": 7, "temperature": 0.0},
    "critique": {
        "prompt": _prompt("critique", "Critique: {draft}"),
        "parser": "after_marker",
        "params": {"marker": "Critique:"},
    },
}


def _chained(model: dict[str, Any], server: Any, source: str, **more: Any) -> dict[str, Any]:
    return _keys(model, server, source, "Better: {draft} / {critique}", 2, **({"chain": CHAIN} | more))


def test_a_reply_is_a_key_of_the_next_question(run, rows, model, fake) -> None:
    server = fake(always)
    ran: Ran = run("generate", **_chained(model, server, rows(ROWS)))
    assert [_sample(row) for row in ran.output] == [(f"r{i}", index) for i in range(4) for index in range(2)]
    for row in ran.output:
        assert row["draft"].startswith(f"Draft: {row['problem']} / ")
        assert row["critique"].startswith(row["draft"])
        assert row["generation"] == f"Better: {row['draft']} / {row['critique']} / {row['seed']}"
    kinds = Counter(body["prompt"].partition(":")[0] for body in server.bodies)
    assert kinds == {"Draft": 4, "Critique": 4, "Better": 8}
    drawn = {body["prompt"].partition(":")[0]: (body["max_tokens"], body["temperature"]) for body in server.bodies}
    assert drawn == {"Draft": (7, 0.0), "Critique": (50, 0.7), "Better": (50, 0.7)}
    assert set(ran.manifest["prompts"]) == {"draft", "critique", "last"}
    assert ran.manifest["tokens"] == {"prompt": 3 * 16, "generated": 2 * 16}


def test_a_reply_that_the_parser_refuses_drops_its_row(run, rows, model, fake) -> None:
    async def unclear(request: web.Request, index: int) -> web.Response:
        body = await request.json()
        if "Critique: Draft: P1" in body["prompt"]:
            body["prompt"] = "nothing of the kind"
        if body["prompt"] == "Draft: P2":
            choice = {"index": 0, "finish_reason": "length", "text": "cut"}
            return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})
        if body["prompt"] == "Draft: P3":
            return web.json_response({"error": {"message": "no"}}, status=400)
        return answer(body)

    ran = run("generate", **_chained(model, fake(unclear), rows(ROWS)))
    assert Counter(ran.reasons) == {"critique_no_after_marker": 1, "draft_truncated": 1, "draft_refused_by_server": 1}
    by_reason = {row["reason"]: row for row in ran.dropped}
    assert by_reason["critique_no_after_marker"]["critique"].startswith("nothing of the kind")
    assert by_reason["draft_truncated"]["draft"] == "cut"
    assert {row["id"] for row in ran.output} == {"r0"} and ran.manifest["rows_in"] == 2 + 3


@pytest.mark.parametrize("count", [2, 6, 11])
def test_a_killed_chain_goes_on(run, rows, model, fake, tmp_path: Path, count: int) -> None:
    stall, enough = _stalls_after(count)
    source = rows(ROWS)
    _kill(write_config(tmp_path / "killed", "generate", _chained(model, fake(stall), source)), enough)
    stored = len(lines(tmp_path / "killed" / "completions.jsonl"))
    server = fake(always)
    resumed = run("generate", "killed", **_chained(model, server, source))
    assert 0 < stored <= count and len(server.bodies) == 16 - stored
    assert resumed.output == run("generate", "whole", **_chained(model, fake(always), source)).output


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ({"generation": {"prompt": _prompt("a", "{problem}")}}, r"chain\.generation: its reply is put into prompts"),
        ({"draft2": {"prompt": _prompt("a", "{problem}")}}, r"chain\.draft2: .*lower-case letters"),
        (
            {"a": {"prompt": _prompt("a", "{b}")}, "b": {"prompt": _prompt("b", "{problem}")}},
            r"needs \{b\}, which is not",
        ),
        ({"a": {"prompt": _prompt("a", "{problem}"), "parser": "numbered_list"}}, "reads a list"),
        ({"a": {"prompt": _prompt("a", "{problem}"), "parser": "score"}}, r"chain\.a: reply parser score needs high"),
        ({"a": {"prompt": _prompt("a", "{problem}"), "max_tokens": 0}}, "max_tokens=0 must be at least 1"),
        ({"problem_source": {"prompt": _prompt("a", "{problem}")}}, "has a column of that name"),
        (CHAIN | {"a": {"prompt": _prompt("a", "{theme}")}}, "no row has 'theme', which a step of the chain needs"),
    ],
)
def test_steps_that_cannot_work(run, rows, model, fake, chain: dict[str, Any], said: str) -> None:
    server = fake(always)
    with pytest.raises(ValueError, match=said):
        run("generate", **_chained(model, server, rows(ROWS), chain=chain))
    assert not server.bodies


def test_the_example_of_the_guide(run, rows, model, fake) -> None:
    guide = (ROOT / "recipes/guides/generation.md").read_text()
    (example,) = re.findall(r"```yaml\n(chain:.*?)```", guide, re.DOTALL)
    keys = yaml.safe_load(example)
    ran = run("generate", **_keys(model, fake(always), rows(ROWS), "", 1) | keys)
    assert {"draft", "critique", "generation"} <= ran.output[0].keys() and len(ran.output) == 8
