"""Replies that differ a little from OpenAI's, and those that are not answers: what is taken of them, and what is not."""

import asyncio
import gzip
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from nemo_ext.serving.address import Dialect, Endpoint
from nemo_ext.serving.client.client import complete
from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.client.failures import Refused, ServerBusy
from nemo_ext.serving.client.http import Mask
from nemo_ext.serving.client.probe import keeps_text, probe
from nemo_ext.serving.client.reply import UnusableReply, read_reply
from nemo_ext.serving.client.requests import Completion, Request, Sampling
from tests.nemo_ext.serving.fake_server import FakeServer, reply_to

Fake = Callable[..., FakeServer]
SAMPLING = Sampling(temperature=1.0, top_p=0.95, top_k=0, max_tokens=8, stop=(), seed=None)
USAGE = {"prompt_tokens": 9, "completion_tokens": 12}
KEY = "sk-SECRETSECRET123"


def _choice(text: Any, index: Any = 0, reason: Any = "stop") -> dict[str, Any]:
    return {"message": {"content": text}, "index": index, "finish_reason": reason}


def _read(choices: list[dict[str, Any]], usage: Any = USAGE) -> list[tuple[str, str]]:
    return [(choice.text, choice.finish_reason) for choice in _reply(choices, usage).choices]


def _reply(choices: list[dict[str, Any]], usage: Any = USAGE) -> Any:
    keys = tuple(f"k{index}" for index in range(1, len(choices)))
    request = Request("k", [{"role": "user", "content": "?"}], SAMPLING, more_keys=keys)
    return read_reply(request, json.dumps({"choices": choices, "usage": usage}).encode())


@pytest.mark.parametrize(
    ("usage", "prompt", "generated"),
    [
        (USAGE, 9, 12),
        (None, None, None),
        ({}, None, None),
        ({"prompt_tokens": 9, "completion_tokens": None}, 9, None),
        ({"completion_tokens": 12}, None, 12),
        ({"prompt_tokens": "9", "completion_tokens": -1}, None, None),
    ],
)
def test_the_text_counts_whatever_the_usage(usage: Any, prompt: int | None, generated: int | None) -> None:
    reply = _reply([_choice("seven")], usage)
    assert (reply.num_prompt_tokens, reply.num_generated_tokens) == (prompt, generated)
    assert reply.choices[0].text == "seven"


def test_contents_of_parts_and_choices_without_indices() -> None:
    parts = [{"type": "text", "text": "3 + 4"}, {"type": "text", "text": " = 7"}]
    assert _read([_choice(parts)]) == [("3 + 4 = 7", "stop")]
    assert _read([_choice("x", None)]) == [("x", "stop")]
    for indices in ((0, 0, 0), (None, None, None)):
        assert [text for text, _ in _read([_choice(t, i) for t, i in zip("abc", indices, strict=True)])] == [
            "a",
            "b",
            "c",
        ]
    assert _read([_choice("b", 1), _choice("a", 0)]) == [("a", "stop"), ("b", "stop")]
    with pytest.raises(UnusableReply, match="indices"):
        _read([_choice("b", 1), _choice("a", 7)])
    with pytest.raises(UnusableReply, match="parts of type thinking beside text"):
        _read([_choice([{"type": "thinking", "thinking": "hm"}, *parts])])


def test_how_answers_end_has_one_name_each() -> None:
    for said, stored in (("stop", "stop"), ("STOP", "stop"), ("eos", "stop"), ("max_tokens", "length")):
        assert _read([_choice("x", reason=said)]) == [("x", stored)]
    for said in ("abort", "error", "", None):
        with pytest.raises(UnusableReply) as raised:
            _read([_choice("3 + 4 =", reason=said)])
        assert not raised.value.final
    with pytest.raises(UnusableReply) as raised:
        _read([_choice("I can", reason="content_filter")])
    assert raised.value.final


def test_counts_of_one_choice_alone_are_not_divided() -> None:
    """llama.cpp: six samples that all reach max_tokens, and the tokens of one."""
    both = [_choice("a b c", 0, "length"), _choice("a b d", 1, "length")]
    assert _reply(both, {"prompt_tokens": 9, "completion_tokens": 8}).num_generated_tokens is None
    assert _reply(both, {"prompt_tokens": 9, "completion_tokens": 16}).num_generated_tokens == 16


def _run(servers: list[FakeServer], count: int = 1, **fields: Any) -> list[Completion]:
    results: list[Completion] = []
    requests = [Request(f"k{i}", f"p{i}", SAMPLING) for i in range(count)]
    config = ClientConfig(**{"backoff_s": 0.01, "all_down_s": 60, **fields})
    complete(requests, [server.endpoint for server in servers], config, results.extend)
    return results


def test_an_answer_that_a_server_broke_off_is_asked_again(fake: Fake) -> None:
    async def behave(request: web.Request, number: int) -> web.StreamResponse | None:
        if number:
            return None
        return web.json_response({"choices": [{"text": "3 + 4 =", "finish_reason": "abort"}], "usage": USAGE})

    (completion,) = _run([fake(behave)])
    assert (completion.text, completion.attempts, completion.finish_reason) == ("re: p0", 2, "stop")


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_stops_the_run_and_is_no_rows_answer(fake: Fake, status: int) -> None:
    async def behave(request: web.Request, number: int) -> web.StreamResponse | None:
        return web.json_response({"error": {"message": "bad key"}}, status=status) if number >= 40 else None

    results: list[Completion] = []
    requests = [Request(f"k{i}", f"p{i}", SAMPLING) for i in range(60)]
    with pytest.raises(Refused, match=f"HTTP {status}: bad key"):
        complete(requests, [fake(behave).endpoint], ClientConfig(), results.extend)
    assert results and all(each.error is None for each in results)


def test_waits_that_servers_ask_for_use_up_no_attempts(fake: Fake) -> None:
    async def behave(request: web.Request, number: int) -> web.StreamResponse | None:
        return web.Response(status=429, headers={"Retry-After": "0.05"}) if number < 5 else None

    (completion,) = _run([fake(behave)], max_attempts=2)
    assert (completion.error, completion.attempts) == (None, 6)


def test_a_longer_wait_than_there_is_patience_stops_at_once(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    async def behave(request: web.Request, number: int) -> web.StreamResponse | None:
        return web.Response(status=429, text="quota used up", headers={"Retry-After": "7200"})

    began = time.monotonic()
    with pytest.raises(ServerBusy, match=r"takes no requests until \d{4}-.*quota used up.*client\.patience_s=3600"):
        _run([fake(behave)])
    assert time.monotonic() - began < 30
    assert "asks to be left alone for 7200 s: HTTP 429: quota used up" in caplog.text


def _probed(server: FakeServer, endpoint: Endpoint | None = None, **fields: Any) -> Any:
    like = Request("k", "p", Sampling(0.7, 0.95, 0, 100, (), 3))
    config = ClientConfig(all_down_s=60, **fields)
    return probe([endpoint or server.endpoint], config, (), like, n=True, seed=True)


def test_the_probe_waits_as_asked_and_shows_the_servers_words(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    server, asked = fake(), []

    def busy(body: dict[str, Any]) -> web.Response:
        asked.append(time.monotonic())
        return (
            web.Response(status=429, text="slow down", headers={"Retry-After": "0.4"})
            if len(asked) == 1
            else reply_to(body)
        )

    server.on_probe = busy
    _probed(server)
    assert asked[1] - asked[0] >= 0.4 and len(asked) == 4, "a request that waited, and three that were answered"
    assert "HTTP 429: slow down" in caplog.text
    server.on_probe = lambda body: web.Response(status=429, text="quota", headers={"Retry-After": "7200"})
    with pytest.raises(ServerBusy, match="HTTP 429: quota"):
        _probed(server)


def test_replies_that_cannot_be_used_stop_before_rows_are_asked(fake: Fake) -> None:
    server = fake()
    server.on_probe = lambda body: web.json_response({"output": "seven"})
    with pytest.raises(Refused, match="not a completion.*seven.*Nothing more was asked"):
        _probed(server)
    assert not server.bodies


def test_a_server_that_counts_one_sample_of_several_is_asked_for_one_at_a_time(fake: Fake) -> None:
    server = fake()

    def one_counted(body: dict[str, Any]) -> web.Response:
        choices = [{"text": "x", "index": i, "finish_reason": "length"} for i in range(body.get("n", 1))]
        usage = {"prompt_tokens": 3, "completion_tokens": body["max_tokens"]}
        return web.json_response({"choices": choices, "usage": usage})

    server.on_probe = one_counted
    assert _probed(server).honours_n is False


def test_what_a_server_does_not_take_is_left_out_or_refused(fake: Fake) -> None:
    server = fake()

    def strict(body: dict[str, Any]) -> web.Response:
        wrong = [name for name in ("seed", "max_tokens") if name in body]
        if wrong:
            return web.json_response({"error": {"message": f"Unsupported parameter: {wrong[0]}"}}, status=400)
        return reply_to(body, "11")

    server.on_probe = strict
    with pytest.raises(Refused, match=r"Unsupported parameter: seed.*server\.seed=false"):
        _probed(server)
    dialect = Dialect(seed=False, max_tokens_key="max_completion_tokens")
    found = _probed(server, Endpoint(server.endpoint.url, "fake", dialect=dialect))
    assert (found.honours_n, found.honours_seed) == (True, False)
    assert b'"max_completion_tokens":8' in Request("k", "p", SAMPLING).body("m", dialect)


def test_a_key_that_a_server_repeats_is_masked(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", KEY)

    async def behave(request: web.Request, number: int) -> web.StreamResponse:
        said = f"no such thing for {request.headers['Authorization']}"
        if number % 2:
            return web.Response(text=f"<html>{said}</html>")
        return web.json_response({"error": {"message": said}}, status=400)

    results: list[Completion] = []
    endpoint = Endpoint(fake(behave).endpoint.url, "fake", "FAKE_KEY", concurrency=1)
    requests = [Request(f"k{i}", "p", SAMPLING) for i in range(2)]
    complete(requests, [endpoint], ClientConfig(max_attempts=1), results.extend)
    assert [("Bearer ***" in str(each.error), KEY in str(each.error)) for each in results] == [(True, False)] * 2
    assert Mask("sk-abc/defgh")(b'{"m": "sk-abc\\/defgh"}') == b'{"m": "***"}'


def test_replies_have_an_end(fake: Fake) -> None:
    async def behave(request: web.Request, number: int) -> web.StreamResponse | None:
        if number == 0:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:
                await response.write(b" " * 65536)
                await asyncio.sleep(0)
        if number == 1:
            packed = gzip.compress(b"a" * (64 << 20))
            return web.Response(body=packed, headers={"Content-Encoding": "gzip"})
        if number == 2:
            return web.StreamResponse(headers={"Content-Length": str(4 << 30)})
        return None

    (completion,) = _run([fake(behave)])
    assert (completion.text, completion.attempts) == ("re: p0", 4)


def test_redirects_are_refused(fake: Fake) -> None:
    other = fake()

    async def behave(request: web.Request, number: int) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(f"{other.endpoint.url}/v1/completions")

    with pytest.raises(Refused, match=f"sends requests on to {other.endpoint.url}.*nobody said"):
        _run([fake(behave)])
    assert not other.bodies


def test_rendered_prompts_go_as_token_ids(fake: Fake) -> None:
    server = fake()
    requests = [Request("a", "<bos>hi", SAMPLING, rendered=True), Request("b", "<bos>hi", SAMPLING)]
    endpoint = Endpoint(server.endpoint.url, "fake", concurrency=1)
    complete(requests, [endpoint], ClientConfig(), lambda done: None, encode=lambda text: (1, 2))
    assert server.bodies[0]["prompt"] == [1, 2] and "add_special_tokens" not in server.bodies[0]
    assert server.bodies[1]["prompt"] == "<bos>hi"
    scored = json.loads(Request("c", "t", SAMPLING, True, returns="logprobs").body("m", Dialect()))
    assert (scored["logprobs"], scored["add_special_tokens"]) == (1, False)


@pytest.mark.parametrize(("honours", "keeps"), [(True, True), (False, False)])
def test_a_server_that_puts_a_second_bos_is_found_out(fake: Fake, honours: bool, keeps: bool) -> None:
    async def behave(request: web.Request, number: int) -> web.StreamResponse:
        body = await request.json()
        adds = body.get("add_special_tokens", True) or not honours
        tokens = body["prompt"].count("<bos>") + len(body["prompt"].replace("<bos>", "").split()) + adds
        choices = [{"text": "x", "finish_reason": "length"}]
        return web.json_response({"choices": choices, "usage": {"prompt_tokens": tokens, "completion_tokens": 1}})

    request = Request("k", "<bos>one two", SAMPLING, rendered=True)
    assert keeps_text([fake(behave).endpoint], request, "<bos>") is keeps
