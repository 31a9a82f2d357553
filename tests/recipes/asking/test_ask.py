"""Asking a model about rows: what a stage need not write out."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from nemo_ext.models.model import Model
from nemo_ext.records import manifest
from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import Row, RowOutcome
from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.client.requests import Completion, Sampling
from nemo_ext.serving.completions.completion_store import CompletionStore
from recipes.asking import complete
from recipes.asking.ask import ask_rows
from recipes.asking.asked_model import AskedModel
from recipes.asking.question import Question
from recipes.asking.replies import Replies
from recipes.asking.served import ServedStage
from recipes.stage import ReadsRows, row_files
from tests.nemo_ext.serving.fake_server import FakeServer, reply_to
from tests.recipes.conftest import external, lines

GREEDY = Sampling(0.0, 1.0, 0, 16, (), None)


class Config(ServedStage, ReadsRows):
    pass


class Topics:
    """Two questions of a topic; of each reply's words a row."""

    def questions(self, row: Row) -> Iterator[Question]:
        if row["topic"]:
            yield Question(f"About {row['topic']}", GREEDY)
            yield Question(f"More on {row['topic']}", GREEDY)

    def outcome(self, row: Row, replies: Sequence[Completion], counts: Counter[str]) -> Iterator[RowOutcome]:
        words = [word for reply in replies if reply.error is None for word in reply.text.split()]
        counts["words"] += len(words)
        if not replies:
            yield row, "not_asked"
        elif not words:
            yield row | {"why": [reply.retryable for reply in replies]}, "no_words"
        for word in words:
            yield row | {"word": word}, None


async def _words(request: web.Request, _: int) -> web.StreamResponse:
    body = json.loads(await request.read())
    if "hard" in body["prompt"]:
        return web.json_response({"error": {"message": "no"}}, status=400)
    return reply_to(body, " " if "empty" in body["prompt"] else f"one {body['prompt'].split()[-1]}")


def _ask(folder: Path, server: FakeServer, model: dict[str, Any], source: str, **keys: Any) -> Facts:
    settings = {"client": ClientConfig(backoff_s=0.01)} | keys
    cfg = Config(
        uses="x", name="topics", output_dir=str(folder), model=Model(**model), server=external(server), **settings
    )  # fmt: skip
    return ask_rows(cfg, row_files(cfg, source), Topics(), "questions", seeds={"s": 1})


def _given(tmp_path: Path, *topics: str) -> str:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "output.jsonl").write_text(
        "".join(json.dumps({"topic": topic, "problem": "p"}) + "\n" for topic in topics)
    )
    (folder / manifest.MANIFEST).write_text("{}")
    return str(folder)


def test_rows_in_and_made_are_rows_out_and_dropped(tmp_path: Path, model: Any, fake: Any) -> None:
    server = fake(_words)
    facts = _ask(tmp_path / "out", server, model, _given(tmp_path, "rings", "", "hard", "empty", "rings"))
    rows = lines(tmp_path / "out" / "output.jsonl")
    assert [row["word"] for row in rows] == ["one", "rings", "one", "rings"] * 2
    assert facts.dropped == {"not_asked": 1, "no_words": 2}
    assert (facts.rows_in, facts.rows_made, facts.rows_out) == (5, 6, 8)
    assert facts.figures["words"] == 8 and facts.seeds == {"s": 1}
    assert facts.server["model_id"] == "fake" and list(facts.models) == [model["name"]]
    assert [row["why"] for row in lines(tmp_path / "out" / "dropped.jsonl") if "why" in row] == [[False, False]] * 2


def test_equal_questions_are_asked_once_and_stored_answers_never_again(tmp_path: Path, model: Any, fake: Any) -> None:
    server, source = fake(_words), _given(tmp_path, *["rings", "fields"] * 50)
    first = _ask(tmp_path / "out", server, model, source)
    assert len(server.bodies) == 4
    assert _ask(tmp_path / "out", server, model, source).rows_out == first.rows_out == 400
    assert len(server.bodies) == 4


def test_keys_that_are_not_remembered_any_more_are_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(complete, "REMEMBERED", 4)
    asked: list[str] = []
    with CompletionStore(tmp_path / "completions.jsonl") as store:
        requests = [Question(f"Q {number % 10}", GREEDY).request("m") for number in range(50)]
        for request in complete._unanswered(store, requests):
            asked.append(request.key)
            if len(asked) % 2:  # the others are under way for ever
                store.append([Completion(request.key, "t", "stop", 1, 1, 0.0, None, 1)])
    assert len(asked) == len(set(asked)) == 10


def test_a_row_of_which_nothing_is_said_is_an_error(tmp_path: Path, model: Any, fake: Any) -> None:
    class Forgets(Topics):
        def outcome(self, row: Row, replies: Sequence[Completion], counts: Counter[str]) -> Iterator[RowOutcome]:
            yield from ()

    cfg = Config(
        uses="x", name="t", output_dir=str(tmp_path / "o"), model=Model(**model), server=external(fake(_words))
    )
    with pytest.raises(AssertionError, match="nothing says what became of row"):
        ask_rows(cfg, row_files(cfg, _given(tmp_path, "rings")), Forgets(), "questions")


def test_what_was_given_up_is_asked_again_and_its_rows_written_anew(tmp_path: Path, model: Any, fake: Any) -> None:
    """Also where the part that they are in was finished without it."""
    down = True

    async def behave(request: web.Request, index: int) -> web.StreamResponse:
        body = json.loads(await request.read())
        if down and body["prompt"] in ("About rings", "More on rings"):
            return web.json_response({"error": {"message": "later"}}, status=503)
        return await _words(request, index)

    source = _given(tmp_path, "rings", *(f"t{number}" for number in range(9)))
    client = ClientConfig(backoff_s=0.01, max_attempts=2, max_given_up=0.5)
    server = fake(behave)
    _ask(tmp_path / "out", server, model, source, client=client)
    assert lines(tmp_path / "out" / "dropped.jsonl")[0]["why"] == [True, True]
    down, asked = False, len(server.bodies)
    facts = _ask(tmp_path / "out", server, model, source, client=client)
    assert len(server.bodies) == asked + 2, "those alone"
    assert facts.dropped == {} and lines(tmp_path / "out" / "output.jsonl")[0]["topic"] == "rings"


def test_a_text_is_found_by_one_key(tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Question] = []
    key = Replies.key

    def counted(self: Replies, question: Question) -> str:
        made.append(question)
        return key(self, question)

    question = Question("About rings", GREEDY)
    cfg = Config(uses="x", name="topics", output_dir=str(tmp_path), model=Model(**model), server={"kind": "external"})
    with CompletionStore(tmp_path / "completions.jsonl") as store:
        replies = Replies(cfg, AskedModel("m", "f", "k", [], "c"), store)
        assert replies.text(question) is None
        replies.keep([Completion(replies.key(question), "one", "stop", 1, 1, 0.0, None, 1)])
        monkeypatch.setattr(Replies, "key", counted)
        assert replies.text(question) == "one" and made == [question]
