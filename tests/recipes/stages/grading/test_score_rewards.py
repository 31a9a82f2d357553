"""The score_rewards stage against servers that answer as NVIDIA's NIM and vLLM's /pooling do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from transformers import AutoTokenizer, LlamaForCausalLM

from recipes.stages.grading.score_rewards import TRIED, Config, check
from tests.nemo_ext.serving.conftest import Running
from tests.nemo_ext.serving.fake_server import FakeServer, reply_to
from tests.recipes.conftest import Ran, external

Run = Callable[..., Ran]
Write = Callable[[list[dict[str, Any]]], str]


def _rows(count: int = 4) -> list[dict[str, Any]]:
    return [
        {"benchmark": "b", "id": str(i), "sample": 0, "problem": f"P{i}", "generation": f"G{i}"} for i in range(count)
    ]


async def _nim(request: web.Request, _: int) -> web.StreamResponse:
    """A reward as long as the solution is, as a NIM says it."""
    body = json.loads(await request.read())
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant"]
    return reply_to(body, f"reward:-{body['messages'][1]['content'][1:]}.5")


async def _pooling(request: web.Request, _: int) -> web.StreamResponse:
    """Every token's output, as vLLM gives it for a reward model."""
    number = float(json.loads(await request.read())["messages"][1]["content"][1:])
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    return web.json_response({"object": "list", "data": [{"index": 0, "data": [[9.0], [number]]}], "usage": usage})


def _score(run: Run, server: FakeServer, model: dict[str, Any], source: str, **keys: Any) -> Ran:
    return run("score_rewards", input=source, model=model | {"name": "fake"}, server=external(server), **keys)


def test_each_solution_gets_its_reward(run: Run, rows: Write, model: Any, fake: Any) -> None:
    ran = _score(run, fake(_nim), model, rows(_rows()))
    assert ran.output == [row | {"reward": -(i + 0.5)} for i, row in enumerate(_rows())]
    assert ran.manifest["figures"]["scored"] == 4


def test_pooling(run: Run, rows: Write, model: Any, fake: Any) -> None:
    server = fake(_pooling)
    ran = _score(run, server, model, rows(_rows()), protocol="pooling")
    assert [row["reward"] for row in ran.output] == [0.0, 1.0, 2.0, 3.0]
    assert set(server.paths) == {"/pooling"} and set(server.bodies[0]) == {"model", "messages"}


def test_only_what_is_missing_is_asked_for_and_equal_solutions_once(
    run: Run, rows: Write, model: Any, fake: Any
) -> None:
    server = fake(_nim)
    known, empty = _rows()[1] | {"reward": 7.0}, _rows()[2] | {"generation": ""}
    ran = _score(run, server, model, rows([_rows()[3], known, empty, _rows()[3] | {"sample": 1}]))
    assert [row["reward"] for row in ran.output] == [-3.5, 7.0, None, -3.5]
    assert len(server.bodies) == 1


def test_a_reply_without_a_score_is_null_and_counted(run: Run, rows: Write, model: Any, fake: Any) -> None:
    async def behave(request: web.Request, number: int) -> web.StreamResponse:
        return await _nim(request, number) if number else reply_to(json.loads(await request.read()), "I like it.")

    ran = _score(run, fake(behave), model, rows(_rows(2)))
    assert {row["reward"] is None for row in ran.output} == {True, False}
    assert ran.manifest["figures"]["no_score"] == ran.manifest["figures"]["scored"] == 1


async def _no_score(request: web.Request, _: int) -> web.StreamResponse:
    return reply_to(json.loads(await request.read()), "I like it.")


async def _nonsense(_: web.Request, __: int) -> web.StreamResponse:
    return web.json_response({"score": 3.0})


async def _no_such_path(_: web.Request, __: int) -> web.StreamResponse:
    return web.Response(status=404, text="no such path")


@pytest.mark.parametrize(
    ("behave", "attempts", "said"),
    [(_no_score, 1, "I like it"), (_nonsense, 2, r"the reply cannot be used, .*\"score\"")],
)  # fmt: skip
def test_a_server_that_scores_nothing_is_found_out_by_the_first_few(
    run: Run, rows: Write, model: Any, fake: Any, behave: Any, attempts: int, said: str
) -> None:
    server, source = fake(behave), rows(_rows(40))
    told = rf"none of the first 8 replies of http://.* is a score; one is .*{said}.*protocol=chat what .*\(others: pooling, likelihood\)"
    with pytest.raises(ValueError, match=told):
        _score(run, server, model, source, client={"backoff_s": 0.01})
    assert len(server.bodies) == 8 * attempts, "and not all forty"
    server.behave = _nim
    assert len(_score(run, server, model, source).output) == 40, "nothing of it was kept"


def test_a_server_without_that_path_is_found_out_by_the_first(run: Run, rows: Write, model: Any, fake: Any) -> None:
    server = fake(_no_such_path)
    with pytest.raises(
        ValueError, match=r"HTTP 404: no such path.*protocol=chat what .*\(others: pooling, likelihood\)"
    ):
        _score(run, server, model, rows(_rows(40)))
    assert len(server.bodies) <= 8


@pytest.mark.parametrize("status", [503, 400])
def test_servers_that_are_busy_and_solutions_too_long_say_nothing_of_the_others(
    run: Run, rows: Write, model: Any, fake: Any, status: int
) -> None:
    async def behave(request: web.Request, number: int) -> web.StreamResponse:
        body = json.loads(await request.read())
        first = int(body["messages"][1]["content"][1:]) < TRIED
        if first and (status == 400 or number < 2 * TRIED):
            return web.Response(status=status, text="not now")
        return await _nim(request, number)

    ran = _score(run, fake(behave), model, rows(_rows(TRIED + 4)), client={"backoff_s": 0.01})
    assert sum(row["reward"] is not None for row in ran.output) == (4 if status == 400 else TRIED + 4)


def test_where_nothing_was_tried_all_replies_tell(run: Run, rows: Write, model: Any, fake: Any) -> None:
    async def behave(request: web.Request, number: int) -> web.StreamResponse:
        return web.Response(status=503) if number < 4 else await _no_score(request, number)

    with pytest.raises(ValueError, match="none of 2 replies is a score.*redo=true stages.out.reuse_completions=false"):
        _score(run, fake(behave), model, rows(_rows(2)), client={"backoff_s": 0.01})


def test_weights_for_another_model_say_what_there_is_and_replies_are_kept(
    run: Run, rows: Write, model: Any, fake: Any
) -> None:
    server = fake(_nim)
    with pytest.raises(ValueError, match="scores reward; .*it has no helpfulness"):
        _score(run, server, model, rows(_rows()), weights={"helpfulness": 1.0})
    asked = len(server.bodies)
    assert _score(run, server, model, rows(_rows()), weights={"reward": 2.0}).output[0]["reward"] == -1.0
    assert len(server.bodies) == asked == 4


def test_likelihood_is_the_mean_of_the_solutions_tokens(
    run: Run, rows: Write, shared_server: Running, tiny_checkpoint: Path
) -> None:
    """As transformers has it, by the embedded server; the tokens of the problem do not count."""
    prompt = {"name": "p", "template": "chat", "system": None, "user": "{problem}", "example": "", "separator": "",
              "few_shot": [], "stop": []}  # fmt: skip
    given = [{"problem": "Ann has 5", "generation": text} for text in ("17 coins", "Zoë buys 12 tickets.", "")]
    named = {"name": "tiny", "hf_path": str(tiny_checkpoint), "context_length": 512}
    server = {"kind": "external", "urls": [shared_server.url], "model": "tiny", "concurrency": 2}
    ran = run("score_rewards", input=rows(given), model=named, server=server, protocol="likelihood", prompt=prompt)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(tiny_checkpoint),
        LlamaForCausalLM.from_pretrained(tiny_checkpoint),
    )
    messages = [{"role": "user", "content": "Ann has 5"}]
    context = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    skip = len(tokenizer.encode(context, add_special_tokens=False))
    for row, each in zip(given[:2], ran.output, strict=False):
        ids = tokenizer.encode(context + row["generation"], add_special_tokens=False)
        with torch.inference_mode():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = [float(logprobs[i - 1, ids[i]]) for i in range(skip, len(ids))]
        assert each["reward"] == pytest.approx(sum(expected) / len(expected), abs=1e-4)
    assert ran.output[2]["reward"] is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"protocol": "rest"}, "it may be chat or pooling or likelihood"),
        ({"server": {"kind": "embedded"}}, "server=embedded has no"),
    ],
)
def test_settings_are_checked(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    common = {"name": "score_rewards", "uses": "score_rewards", "output_dir": str(tmp_path), "input": "x"}
    with pytest.raises(ValueError, match=message):
        check(Config(**common | {"server": {"kind": "external"}} | fields))  # type: ignore[arg-type]


def test_the_first_few_are_not_paid_for_again_after_redo(
    run: Run, rows: Write, model: Any, fake: Any, tmp_path: Path
) -> None:
    server, source = fake(_nim), rows(_rows(TRIED + 3))
    before = _score(run, server, model, source)
    assert len(server.bodies) == TRIED + 3
    (tmp_path / "out").rename(tmp_path / "out.old1")
    after = _score(run, server, model, source)
    assert len(server.bodies) == TRIED + 3 and after.output == before.output
    (tmp_path / "out").rename(tmp_path / "out.old2")
    _score(run, server, model, source, reuse_completions=False)
    assert len(server.bodies) == 2 * (TRIED + 3)
