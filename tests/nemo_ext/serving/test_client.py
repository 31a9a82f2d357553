"""The client against servers that misbehave in every way we know."""

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.client.client import Stats, complete
from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.client.failures import ServersDown, TooManyFailures
from nemo_ext.serving.client.requests import Completion, Request, Sampling, request_key
from tests.nemo_ext.serving.fake_server import FakeServer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SAMPLING = Sampling(temperature=1.0, top_p=0.95, top_k=0, max_tokens=8, stop=(), seed=None)


def _requests(count: int) -> list[Request]:
    return [Request(f"k{i}", f"p{i}", SAMPLING) for i in range(count)]


def _config(**fields: Any) -> ClientConfig:
    return ClientConfig(**{"timeout_s": 60, "backoff_s": 0.01, "all_down_s": 60, **fields})


def _run(servers: list[FakeServer], count: int = 20, **fields: Any) -> tuple[dict[str, Completion], Stats]:
    results: list[Completion] = []
    stats = complete(_requests(count), [server.endpoint for server in servers], _config(**fields), results.extend)
    by_key = {completion.key: completion for completion in results}
    assert len(results) == len(by_key) == count == stats.done
    return by_key, stats


def _all_well(results: dict[str, Completion]) -> bool:
    return all(c.error is None and c.text == f"re: p{key[1:]}" for key, c in results.items())


def test_text_and_messages_and_what_is_sent(fake: Callable[..., FakeServer], monkeypatch: pytest.MonkeyPatch) -> None:
    server = fake()
    monkeypatch.setenv("FAKE_KEY", "s3cret")
    full = Sampling(temperature=0.7, top_p=0.9, top_k=5, max_tokens=9, stop=("a", "b"), seed=4)
    messages = [{"role": "user", "content": "hi"}]
    requests = [Request("text", "hello", SAMPLING), Request("chat", messages, full)]
    results: dict[str, Completion] = {}
    endpoint = Endpoint(server.endpoint.url, "fake", "FAKE_KEY", concurrency=1)
    stats = complete(requests, [endpoint], _config(), lambda done: results.update({c.key: c for c in done}))
    text, chat = server.bodies
    assert text == {"model": "fake", "prompt": "hello", "temperature": 1.0, "top_p": 0.95, "max_tokens": 8}
    sampling = {"temperature": 0.7, "top_p": 0.9, "max_tokens": 9, "top_k": 5, "stop": ["a", "b"], "seed": 4}
    assert chat == {"model": "fake", "messages": messages, **sampling}
    assert set(server.paths) == {"/v1/completions", "/v1/chat/completions"}
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    assert results["chat"].text == "re: hi"
    assert (results["text"].num_prompt_tokens, results["text"].num_generated_tokens) == (3, 2)
    assert (results["text"].finish_reason, results["text"].attempts, results["text"].error) == ("stop", 1, None)
    assert (stats.done, stats.prompt_tokens, stats.generated_tokens, stats.in_flight) == (2, 6, 4, 0)


def test_a_missing_key_and_no_endpoints_are_refused(fake: Callable[..., FakeServer]) -> None:
    with pytest.raises(ValueError, match="environment variable NOT_SET_ANYWHERE"):
        complete(_requests(1), [Endpoint("http://127.0.0.1:1", "m", "NOT_SET_ANYWHERE")], _config(), print)
    with pytest.raises(ValueError, match="no endpoints"):
        complete(_requests(1), [], _config(), print)


def test_no_requests(fake: Callable[..., FakeServer]) -> None:
    assert _run([fake()], 0)[1].done == 0


def test_requests_are_taken_only_when_a_worker_is_free(fake: Callable[..., FakeServer]) -> None:
    async def slow(request: web.Request, number: int) -> None:
        await asyncio.sleep(0.005)

    server, taken, done = fake(slow), 0, 0

    def requests() -> Iterator[Request]:
        nonlocal taken
        for request in _requests(200):
            taken += 1
            assert taken - done <= 8
            yield request

    def count(completions: list[Completion]) -> None:
        nonlocal done
        done += len(completions)

    complete(requests(), [server.endpoint], _config(), count)
    assert taken == done == 200
    assert 2 <= server.most_open <= 8


async def _hang(request: web.Request) -> None:
    await asyncio.sleep(60)


async def _reset(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()
    await asyncio.sleep(60)


async def _truncate(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"te')
    assert request.transport is not None
    request.transport.close()
    return response


def _plain(status: int, text: str = "", **headers: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=text, headers=headers)

    return answer


@pytest.mark.parametrize(
    ("misbehave", "kind"),
    [
        (_reset, "reset"),
        (_hang, "timeout"),
        (_truncate, "truncated"),
        (_plain(200, "<html>busy</html>"), "bad_reply"),
        (_plain(200, '{"choices": []}'), "bad_reply"),
        (
            _plain(200, '{"choices": [{"text": 5, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1}}'),
            "bad_reply",
        ),
        (_plain(200, "[]"), "bad_reply"),
        (_plain(500, "oops"), "500"),
        (_plain(502), "502"),
        (_plain(503), "503"),
        (_plain(408), "408"),
        (_plain(429, "slow down"), "429"),
    ],
)
def test_transient_failures_are_retried(fake: Callable[..., FakeServer], misbehave: Handler, kind: str) -> None:
    """Every third request fails once or more; all of them arrive in the end."""

    async def behave(request: web.Request, number: int) -> web.StreamResponse | None:
        return await misbehave(request) if number % 3 == 0 else None

    timeout_s = 0.5 if kind == "timeout" else 60
    results, stats = _run([fake(behave)], timeout_s=timeout_s, max_attempts=100)  # which attempts fail is chance
    assert _all_well(results)
    assert stats.retries[kind] >= 7 - 1
    assert sum(stats.retries.values()) == sum(c.attempts - 1 for c in results.values())


def test_retry_after_is_honoured(fake: Callable[..., FakeServer]) -> None:
    times: list[float] = []

    async def behave(request: web.Request, number: int) -> web.StreamResponse | None:
        times.append(time.monotonic())
        return web.Response(status=429, headers={"Retry-After": "0.5"}) if number == 0 else None

    assert _all_well(_run([fake(behave)], 1)[0])
    assert times[1] - times[0] >= 0.5


@pytest.mark.parametrize("status", [400, 413, 422])
def test_refusals_are_final_and_carry_the_server_message(fake: Callable[..., FakeServer], status: int) -> None:
    async def behave(request: web.Request, number: int) -> web.StreamResponse | None:
        if (await request.json())["prompt"] != "p3":
            return None
        return web.json_response({"error": {"message": "prompt has 9000 tokens"}}, status=status)

    results, stats = _run([fake(behave)])
    refused = results.pop("k3")
    assert _all_well(results)
    assert refused.error == f"HTTP {status}: prompt has 9000 tokens"
    assert (refused.text, refused.attempts, refused.retryable, refused.finish_reason) == ("", 1, False, None)
    assert (stats.errors, stats.retries) == (1, Counter())


def test_attempts_run_out(fake: Callable[..., FakeServer]) -> None:
    async def behave(request: web.Request, number: int) -> web.StreamResponse | None:
        return web.Response(status=500, text="boom") if (await request.json())["prompt"] == "p3" else None

    results, stats = _run([fake(behave)], max_attempts=3)
    failed = results.pop("k3")
    assert _all_well(results)
    assert (failed.error, failed.attempts, failed.retryable) == ("HTTP 500: boom", 3, True)
    assert stats.retries == {"500": 2}


def test_too_many_refusals_in_a_row_stop_the_run(fake: Callable[..., FakeServer]) -> None:
    async def behave(request: web.Request, number: int) -> web.StreamResponse | None:
        return web.json_response({"message": "no such model"}, status=400) if number >= 10 else None

    server, results = fake(behave), []
    with pytest.raises(TooManyFailures, match=r"5 requests in a row failed(.|\n)*HTTP 400: no such model"):
        complete(_requests(1000), [server.endpoint], _config(max_permanent_in_a_row=5), results.extend)
    assert len(server.bodies) < 40
    assert sum(c.error is None for c in results) == 10


def test_load_goes_to_the_least_busy_server(fake: Callable[..., FakeServer]) -> None:
    async def slow(request: web.Request, number: int) -> None:
        while len(servers[1].bodies) < 100:
            await asyncio.sleep(0.005)

    servers = [fake(slow), fake()]
    assert _all_well(_run(servers, 130)[0])
    assert len(servers[1].bodies) >= 100 > len(servers[0].bodies) > 0


def test_a_draining_server_is_left_and_taken_back(fake: Callable[..., FakeServer]) -> None:
    draining = True

    async def behave(request: web.Request, number: int) -> web.StreamResponse | None:
        return web.Response(status=503) if draining else None

    async def wait_for_it(request: web.Request, number: int) -> None:
        while not draining and len(servers[0].bodies) <= refused_when_back + 10:
            await asyncio.sleep(0.005)

    servers = [fake(behave), fake(wait_for_it)]
    servers[0].health_status = 503
    refused_when_back = 0

    def on_result(completions: list[Completion]) -> None:
        nonlocal draining, refused_when_back
        if completions[0].key == "k60":
            refused_when_back = len(servers[0].bodies)
            servers[0].health_status, draining = 200, False

    complete(_requests(200), [server.endpoint for server in servers], _config(), on_result)
    assert refused_when_back <= 8 * 2  # those in flight when it began to refuse, no more
    assert len(servers[0].bodies) > refused_when_back + 10


def test_a_server_that_dies_and_comes_back(fake: Callable[..., FakeServer]) -> None:
    server = fake()
    results: list[Completion] = []

    def on_result(completions: list[Completion]) -> None:
        results.extend(completions)
        if len(results) == 20:
            server.stop()
            threading.Timer(0.7, server.start).start()

    stats = complete(_requests(200), [server.endpoint], _config(), on_result)
    assert len({c.key for c in results}) == len(results) == 200
    assert all(c.error is None for c in results)
    assert stats.errors == 0


def test_all_servers_down(fake: Callable[..., FakeServer]) -> None:
    server = fake()
    server.stop()
    with pytest.raises(ServersDown, match=r"no server has answered for 0\.5 s(.|\n)*127\.0\.0\.1") as raised:
        complete(_requests(5), [server.endpoint], _config(all_down_s=0.5), print)
    assert "Connect" in str(raised.value)


def test_connections_closed_at_keep_alive_do_not_lose_requests() -> None:
    """A server that says keep-alive and closes each connection after its reply, as one whose idle time ran out."""
    payload = json.dumps(
        {"choices": [{"text": "ok", "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    ).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(payload)
    listener = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with connection:
            data = b""
            while b"max_tokens" not in data and b"/health" not in data:
                if not (received := connection.recv(65536)):
                    return
                data += received
            connection.sendall(head + payload)
            time.sleep(0.003)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    results: list[Completion] = []
    endpoint = Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}", "m")
    complete(_requests(100), [endpoint], _config(), results.extend)
    listener.close()
    assert [c.error for c in results] == [None] * 100


def test_what_a_callback_raises_stops_the_run(fake: Callable[..., FakeServer]) -> None:
    calls: list[Completion] = []

    def full(completions: list[Completion]) -> None:
        calls.extend(completions)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        complete(_requests(1000), [fake().endpoint], _config(), full)
    assert len(calls) == 1


def test_ticks(fake: Callable[..., FakeServer], monkeypatch: pytest.MonkeyPatch) -> None:
    async def until_it_ticks(request: web.Request, number: int) -> None:
        while len(seen) <= 5:
            await asyncio.sleep(0.005)

    monkeypatch.setattr("nemo_ext.serving.client.client.TICK_S", 0.02)
    seen: list[tuple[int, int]] = []
    server = fake(until_it_ticks)
    complete(_requests(40), [server.endpoint], _config(), print, lambda s: seen.append((s.done, s.in_flight)))
    assert len(seen) > 5
    assert seen[-1] == (40, 0)
    assert max(in_flight for _, in_flight in seen) == 8


def test_request_keys() -> None:
    key = request_key("m", "p", SAMPLING, 0)
    assert len(bytes.fromhex(key)) == 16
    assert key == request_key("m", "p", Sampling(1.0, 0.95, 0, 8, (), None), 0)
    others = [
        request_key("m2", "p", SAMPLING, 0),
        request_key("m", "q", SAMPLING, 0),
        request_key("m", [{"role": "user", "content": "p"}], SAMPLING, 0),
        request_key("m", "p", SAMPLING, 1),
        request_key("m", "p", Sampling(1.0, 0.95, 0, 8, (), 0), 0),
        request_key("m", "p", Sampling(1.0, 0.95, 0, 8, ("x",), None), 0),
    ]
    assert len({key, *others}) == 7
    assert request_key("m", [{"b": "1", "a": "2"}], SAMPLING, 0) == request_key(
        "m", [{"a": "2", "b": "1"}], SAMPLING, 0
    )
