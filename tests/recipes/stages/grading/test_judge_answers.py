"""The judge_answers stage: who is asked about, in which orders, and what comes of the replies."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.nemo_ext.serving.fake_server import FakeServer, reply_to
from tests.recipes.conftest import Ran, external

Run = Callable[..., Ran]
Write = Callable[[list[dict[str, Any]]], str]
PROMPT = {
    "name": "judge", "template": "chat", "system": None, "user": "{problem} | {expected_answer} | {predicted_answer}",
    "example": "", "separator": "", "few_shot": [], "stop": [],
}  # fmt: skip


def _row(number: int, verdict: str, predicted: str | None = "a", expected: str = "b") -> dict[str, Any]:
    return {
        "id": str(number), "problem": f"P{number}", "predicted_answer": predicted, "expected_answer": expected,
        "is_correct": verdict == "equal", "verdict": verdict, "grade_method": "rule",
    }  # fmt: skip


def _saying(replies: dict[str, str]) -> Callable[..., Any]:
    """A server that answers by the question; `default` else."""

    async def behave(request: web.Request, _: int) -> web.StreamResponse:
        body = json.loads(await request.read())
        question = body["messages"][-1]["content"]
        return reply_to(body, replies.get(question, replies["default"]))

    return behave


def _judge(run: Run, server: FakeServer, model: dict[str, Any], source: str, **keys: Any) -> Ran:
    model = model | {"name": "fake"}
    return run("judge_answers", input=source, prompt=PROMPT, model=model, server=external(server), **keys)


def test_only_the_undecided_are_asked_about_in_both_orders(run: Run, rows: Write, model: Any, fake: Any) -> None:
    server = fake(_saying({"default": "True."}))
    given = [_row(0, "equal"), _row(1, "undecided"), _row(2, "different"), _row(3, "undecided", None)]
    ran = _judge(run, server, model, rows(given))
    asked = sorted(body["messages"][-1]["content"] for body in server.bodies)
    assert asked == ["P1 | a | b", "P1 | b | a"]
    assert ran.output[0] == given[0] and ran.output[2] == given[2] and ran.output[3] == given[3]
    judged = {"is_correct": True, "verdict": "equal", "grade_method": "judge", "judge_replies": ["True."] * 2}
    assert ran.output[1] == given[1] | judged
    assert ran.manifest["figures"]["asked"] == ran.manifest["figures"]["equal"] == 1


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ("True", "yes", "equal"),
        ("False", "No.", "different"),
        ("True", "False", "undecided"),
        ("True", "I cannot say", "undecided"),
        ("", "", "undecided"),
    ],
)
def test_both_orders_must_agree(
    run: Run, rows: Write, model: Any, fake: Any, first: str, second: str, verdict: str
) -> None:
    server = fake(_saying({"P0 | b | a": first or "?", "P0 | a | b": second or "?", "default": "x"}))
    ran = _judge(run, server, model, rows([_row(0, "undecided")]))
    (row,) = ran.output
    assert row["verdict"] == verdict and row["is_correct"] is (verdict == "equal")
    assert row["grade_method"] == ("rule" if verdict == "undecided" else "judge")
    assert row["judge_replies"] == [first or "?", second or "?"]


def test_the_different_can_be_asked_about_too(run: Run, rows: Write, model: Any, fake: Any) -> None:
    server = fake(_saying({"default": "Verdict: true"}))
    given = [_row(0, "different"), _row(1, "undecided"), {**_row(2, "different"), "verdict": None}]
    ran = _judge(run, server, model, rows(given), which="both")
    assert [row["is_correct"] for row in ran.output] == [True, True, True]
    alone = _judge(run, server, model, rows(given), which="different", folder="alone")
    assert [row["verdict"] for row in alone.output] == ["equal", "undecided", "equal"]


def test_a_question_is_asked_once_and_never_again(
    run: Run, rows: Write, model: Any, fake: Any, tmp_path: Path
) -> None:
    server = fake(_saying({"default": "True"}))
    folder = rows([_row(0, "undecided")] * 5)
    assert [row["is_correct"] for row in _judge(run, server, model, folder).output] == [True] * 5
    assert len(server.bodies) == 2
    (tmp_path / "out" / "_DONE").unlink()
    again = _judge(run, server, model, folder)
    assert len(server.bodies) == 2 and again.output[0]["judge_replies"] == ["True", "True"]


def test_a_refused_question_leaves_its_row_undecided(run: Run, rows: Write, model: Any, fake: Any) -> None:
    async def behave(request: web.Request, _: int) -> web.StreamResponse:
        body = json.loads(await request.read())
        if "P1" in body["messages"][-1]["content"]:
            return web.json_response({"error": {"message": "too long"}}, status=400)
        return reply_to(body, "False")

    ran = _judge(run, fake(behave), model, rows([_row(0, "undecided"), _row(1, "undecided")]))
    assert [row["verdict"] for row in ran.output] == ["different", "undecided"]
    assert ran.output[1]["judge_replies"] == [None, None]
    assert ran.manifest["figures"]["open"] == 1


def test_nothing_to_ask_needs_no_server(run: Run, rows: Write, model: Any) -> None:
    server = {"kind": "external", "urls": ["http://127.0.0.1:9"], "model": "fake"}
    given = [_row(0, "equal")]
    ran = run("judge_answers", input=rows(given), prompt=PROMPT, model=model, server=server)
    assert ran.output == given


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"which": "all"}, "which='all'; it may be one of"), ({"shards": 2}, "this stage is not split")],
)
def test_settings_are_checked(run: Run, rows: Write, model: Any, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(
            "judge_answers",
            input=rows([_row(0, "equal")]),
            prompt=PROMPT,
            model=model,
            server={"kind": "external", "urls": ["http://127.0.0.1:9"]},
            **keys,
        )
