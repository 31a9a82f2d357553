"""Requests that are too big, never fit, or are not read: refused early, in few words, and with bounded memory."""

import asyncio
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from nemo_ext.serving.embedded import stream_buffer
from nemo_ext.serving.embedded.app import MAX_BODY
from nemo_ext.serving.embedded.sequence import Delta
from nemo_ext.serving.embedded.stream_buffer import Held, StreamBuffer
from tests.nemo_ext.serving.conftest import Running


def test_a_body_without_end_is_refused_before_it_is_read(shared_server: Running) -> None:
    status, reply = shared_server.post("/v1/completions", b'{"prompt": "' + b"a" * MAX_BODY)
    assert status == 413 and f"{MAX_BODY:,} bytes" in reply["error"]["message"]


def test_a_prompt_that_cannot_fit_is_not_tokenised(shared_server: Running) -> None:
    for body in ({"prompt": "word " * 200_000}, {"prompt": ["a", "word " * 200_000]}):
        status, reply = shared_server.post("/v1/completions", body)
        assert status == 400 and "1,000,000 characters; the context length is 512" in reply["error"]["message"]
    chat = {"messages": [{"role": "user", "content": "word " * 200_000}]}
    assert shared_server.post("/v1/chat/completions", chat)[0] == 400


def test_what_never_fits_the_queue_is_no_matter_of_waiting(shared_server: Running) -> None:
    status, reply = shared_server.post("/v1/completions", {"prompt": ["a"] * 50, "n": 1024})
    assert status == 400 and "max_queue is 4096: send fewer at once" in reply["error"]["message"]


@pytest.mark.parametrize("name", ["messages", "add_generation_prompt", "self"])
def test_names_that_the_request_sets_are_none_of_the_templates(shared_server: Running, name: str) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "chat_template_kwargs": {name: "x"}}
    status, reply = shared_server.post("/v1/chat/completions", body)
    assert status == 400 and f"chat_template_kwargs may not hold {name}" in reply["error"]["message"]


def test_messages_do_not_repeat_a_megabyte(shared_server: Running) -> None:
    for body in (
        {"prompt": "a", "colour": "x" * 10**6},
        {"prompt": "a", "stop": {"x": ["y" * 10**6]}},
        {"y" * 10**6: 1},
    ):
        status, reply = shared_server.post("/v1/completions", body)
        assert status == 400 and len(json.dumps(reply)) < 2000


def test_tokens_of_the_request_end_it(shared_server: Running, tiny_checkpoint: Path) -> None:
    """As vLLM: the token is not in the text, and stop_reason names it."""
    body = {"prompt": "Ann has 5", "max_tokens": 40, "seed": 1, "temperature": 0, "ignore_eos": True}
    tokenizer = Tokenizer.from_file(str(tiny_checkpoint / "tokenizer.json"))
    whole = shared_server.post("/v1/completions", body)[1]["choices"][0]["text"]
    tokens = tokenizer.encode(whole, add_special_tokens=False).ids
    stop = tokens[len(tokens) // 2]
    (choice,) = shared_server.post("/v1/completions", body | {"stop_token_ids": [stop]})[1]["choices"]
    assert choice["finish_reason"] == "stop" and choice["stop_reason"] == stop
    assert whole.startswith(choice["text"]) and len(choice["text"]) < len(whole)
    assert shared_server.post("/v1/completions", body | {"stop_token_ids": ["x"]})[0] == 400


def test_pieces_that_nobody_reads_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_buffer, "MAX_PIECES", 100)
    monkeypatch.setattr(stream_buffer, "MAX_OWN", 10)
    held, ended = Held(), []
    slow, quick = StreamBuffer(held, lambda: ended.append("slow")), StreamBuffer(held, lambda: ended.append("quick"))
    piece = Delta(0, "x", [], None, None)
    for _ in range(500):
        slow.put(piece)
        quick.put(piece)
        assert quick.take() is piece
    assert ended == ["slow"] and slow.overflown and not quick.overflown and held.pieces == 0
    assert asyncio.run(slow.next()) is None, "whoever waits for it hears of it"
