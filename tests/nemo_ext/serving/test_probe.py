"""What is found out about servers before anything is paid for."""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.client.failures import ServersDown, WrongModel
from nemo_ext.serving.client.probe import Abilities, probe
from nemo_ext.serving.client.requests import Request, Sampling
from tests.nemo_ext.serving.fake_server import FakeServer
from tests.nemo_ext.serving.faulty_server import Server, servers

CONFIG = ClientConfig(all_down_s=60)
Fake = Callable[..., FakeServer]


@pytest.fixture(autouse=True)
def _wait_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_ext.serving.client.probe.OTHERS_S", 60)


def _probe(
    *servers: FakeServer, model: str = "fake", expected: tuple[str, ...] = (), chat: bool = False, **wanted: Any
) -> Abilities:
    endpoints = [replace(server.endpoint, model=model) for server in servers]
    return probe(endpoints, CONFIG, expected, _like(chat), **{"n": True, "seed": True, **wanted})


def _like(chat: bool = False) -> Request:
    prompt: Any = [{"role": "user", "content": "hi"}] if chat else "hi"
    return Request("k", prompt, Sampling(0.7, 0.95, 0, 100, ("#",), 3))


def test_a_server_that_does_everything(fake: Fake) -> None:
    server = fake()
    server.models = [{"id": "fake", "max_model_len": 4096}]
    for chat in (False, True):
        found = _probe(server, chat=chat)
        assert (found.honours_n, found.honours_seed, found.max_model_len) == (True, True, 4096)
        assert found.endpoints == [server.endpoint]


def test_nothing_is_tried_that_is_not_needed(fake: Fake) -> None:
    server = fake()
    found = _probe(server, n=False, seed=False)
    assert (server.probes, found.honours_n, found.honours_seed, found.max_model_len) == (1, None, None, None)
    assert probe([server.endpoint], ClientConfig(probe=False), (), _like(), n=True, seed=True).honours_n is None
    assert server.probes == 1


@pytest.mark.parametrize(("n", "seed"), [(False, True), (True, False), (False, False)])
def test_what_a_server_ignores(fake: Fake, n: bool, seed: bool) -> None:
    able, server = fake(), fake()
    server.honours_n, server.honours_seed = n, seed
    found = _probe(able, server)
    assert (found.honours_n, found.honours_seed) == (n, seed), "the least of all servers counts"


def test_the_wrong_model_is_refused(fake: Fake) -> None:
    server = fake()
    server.models = [{"id": "Llama-3.1-8B"}]
    with pytest.raises(WrongModel, match=r"has Llama-3\.1-8B and not teacher.*server\.model=Llama-3\.1-8B"):
        _probe(server, model="teacher")
    with pytest.raises(WrongModel, match="405B or teacher"):
        _probe(server, model="", expected=("teacher", "405B"))
    assert server.probes == 0, "and before any token is paid for"


def test_an_endpoint_that_is_not_there() -> None:
    said = r"has no /v1/chat/completions.*template: chat go"
    with servers(1, lambda: Server(chats=False)) as (server,), pytest.raises(WrongModel, match=said):
        probe([server.endpoint], CONFIG, (), _like(chat=True), n=True, seed=True)


def test_one_wrong_server_of_two_is_refused(fake: Fake) -> None:
    right, wrong = fake(), fake()
    wrong.models = [{"id": "other"}]
    with pytest.raises(WrongModel, match=f"{wrong.port} has other"):
        _probe(right, wrong)


def test_an_unnamed_model(fake: Fake) -> None:
    server = fake()
    server.models = [{"id": "a"}, {"id": "b"}]
    assert _probe(server, model="", expected=("x", "b")).endpoints[0].model == "b"
    with pytest.raises(WrongModel, match=r"several models: a, b\. Choose: server\.model="):
        _probe(server, model="")
    server.models = [{"id": "a"}]
    assert _probe(server, model="").endpoints[0].model == "a"
    server.models = []
    with pytest.raises(WrongModel, match="does not say which model"):
        _probe(server, model="")
    assert _probe(server, model="given").endpoints[0].model == "given"


def test_a_server_that_starts_late_is_waited_for(fake: Fake) -> None:
    server = fake()
    server.stop()
    threading.Timer(0.7, server.start).start()
    assert _probe(server).endpoints == [server.endpoint]


def test_a_server_that_is_down_is_left_to_the_client(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_ext.serving.client.probe.OTHERS_S", 0.2)
    up, down = fake(), fake()
    down.stop()
    assert _probe(up, down, model="").endpoints == [up.endpoint, down.endpoint]


def test_no_server_at_all(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint("http://127.0.0.1:9", "m")
    with pytest.raises(ServersDown, match=r"no server has answered for 0\.2 s; http://127\.0\.0\.1:9"):
        probe([endpoint], ClientConfig(all_down_s=0.2), (), _like(), n=True, seed=True)
    assert caplog.text.count("asking again for up to 0.2 s") == 1, "said once, while there is still time to look"
