"""The embedded server as a process, over sockets."""

import asyncio
import json
import random
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from transformers import AutoTokenizer

from nemo_ext.models.chat_template import ChatTemplate
from nemo_ext.models.model import Model
from nemo_ext.serving.embedded.app import Api
from nemo_ext.serving.embedded.config import Config
from nemo_ext.serving.embedded.run import load_engine
from tests.nemo_ext.serving.conftest import Running, StartServer, wait_until


def _completion(prompt: object = "Ann has 5", **fields: Any) -> dict[str, Any]:
    return {"prompt": prompt, "max_tokens": 8, "seed": 1, "ignore_eos": True, **fields}


def _choices(server: Running, body: dict[str, Any]) -> list[dict[str, Any]]:
    status, reply = server.post("/v1/completions", body)
    assert status == 200, reply
    return reply["choices"]


def _texts(server: Running, body: dict[str, Any]) -> list[str]:
    return [choice["text"] for choice in _choices(server, body)]


def _stream(server: Running, path: str, body: dict[str, Any]) -> list[Any]:
    """The data of every event; the last must be [DONE]."""
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    connection.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    assert reply.status == 200
    assert reply.getheader("content-type", "").startswith("text/event-stream")
    events = [line[6:] for line in reply.read().decode().split("\n\n") if line]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def test_seeded_samples_are_the_same_alone_and_under_load(shared_server: Running) -> None:
    """20 requests one by one, then amid 128 others: prompts of 3 to 400 tokens, several choices, one prompt shared by
    many, stop strings, every sampling. Equal to the last bit: the log-probabilities of the tokens are compared too."""
    server = shared_server
    kinds = [{"top_p": 0.95}, {"temperature": 0.8}, {"top_k": 20}, {"n": 3}, {"stop": ["zz"]}]
    prompts = ["Bo has {} coins", "Ann has 5", "Zoe buys {} tickets" + " and 17 more" * 30]
    bodies = [
        _completion(prompts[i % 3].format(i), seed=i, max_tokens=40 + i, logprobs=0, **kinds[i % 5]) for i in range(20)
    ]
    alone = [_choices(server, body) for body in bodies]
    others = [_completion("Nadia has 12" + " x" * (3 * i), seed=None, max_tokens=5 + i) for i in range(64)]
    others += [_completion("Ann has 5", n=1 + i % 3, seed=i, max_tokens=20 + i) for i in range(64)]
    everything = list(enumerate(bodies)) + [(-1, body) for body in others]
    random.Random(0).shuffle(everything)
    with ThreadPoolExecutor(len(everything)) as pool:
        replies = list(pool.map(lambda item: (item[0], _choices(server, item[1])), everything))
    crowded = dict(reply for reply in replies if reply[0] >= 0)
    assert [crowded[i] == alone[i] for i in range(20)] == [True] * 20
    assert len({choice["text"] for choices in alone for choice in choices}) == 28


def test_choices_of_a_seed(shared_server: Running) -> None:
    together = _texts(shared_server, _completion(n=4, seed=10))
    assert together == [_texts(shared_server, _completion(seed=10 + i))[0] for i in range(4)]
    assert len(set(together)) == 4
    assert _texts(shared_server, _completion(n=4, seed=None)) != together


def test_list_and_token_prompts(shared_server: Running, tiny_checkpoint: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    prompts = ["Ann has 5", "Bo has 17"]
    each = [_texts(shared_server, _completion(prompt, n=2)) for prompt in prompts]
    assert _texts(shared_server, _completion(prompts, n=2)) == each[0] + each[1]
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    assert _texts(shared_server, _completion(ids, n=2)) == each[0] + each[1]
    assert _texts(shared_server, _completion(ids[0])) == each[0][:1]


def test_beginning_of_sequence_is_added_once(shared_server: Running, tiny_checkpoint: Path) -> None:
    """Completions get it from the tokenizer; chat has it from the template only."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint)
    _, reply = shared_server.post("/v1/completions", _completion("Ann has"))
    bare = len(tokenizer("Ann has", add_special_tokens=False)["input_ids"])
    assert reply["usage"]["prompt_tokens"] == bare + 1
    _, reply = shared_server.post("/v1/completions", _completion("Ann has", add_special_tokens=False))
    assert reply["usage"]["prompt_tokens"] == bare
    messages = [{"role": "user", "content": "Ann has"}]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    status, reply = shared_server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 8, "seed": 1})
    assert (status, reply["usage"]["prompt_tokens"]) == (200, len(expected))
    assert expected.count(tokenizer.bos_token_id) == 1
    completion = _texts(shared_server, {"prompt": expected, "max_tokens": 8, "seed": 1})
    assert completion == [reply["choices"][0]["message"]["content"]]


def test_rendered_text_is_what_the_chat_endpoint_sees(shared_server: Running, tiny_checkpoint: Path) -> None:
    """A trace that goes on as plain text starts from the very tokens of the chat request."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Ann has 5 coins"}]
    text = ChatTemplate(tiny_checkpoint, None).render(messages)
    ids = AutoTokenizer.from_pretrained(tiny_checkpoint)(text, add_special_tokens=False)["input_ids"]
    greedy = {"max_tokens": 12, "temperature": 0, "ignore_eos": True}
    _, chat = shared_server.post("/v1/chat/completions", {"messages": messages, **greedy})
    assert chat["usage"]["prompt_tokens"] == len(ids)
    expected = chat["choices"][0]["message"]["content"]
    for prompt in (text, ids):
        _, reply = shared_server.post("/v1/completions", {"prompt": prompt, "add_special_tokens": False, **greedy})
        assert reply["choices"][0]["text"] == expected
        assert reply["usage"] == chat["usage"]
    _, twice = shared_server.post("/v1/completions", {"prompt": text, **greedy})
    assert twice["usage"]["prompt_tokens"] == len(ids) + 1, "the default adds BOS in front of the template's"


def test_greedy_ignores_the_seed_and_top_k_1_is_greedy(shared_server: Running) -> None:
    greedy = _texts(shared_server, _completion(temperature=0, max_tokens=20))
    assert _texts(shared_server, _completion(temperature=0, max_tokens=20, seed=5)) == greedy
    assert _texts(shared_server, _completion(top_k=1, max_tokens=20, seed=6)) == greedy
    assert _texts(shared_server, _completion(max_tokens=20)) != greedy


def test_stop_strings_are_trimmed(shared_server: Running) -> None:
    (text,) = _texts(shared_server, _completion(max_tokens=40))
    middle = text[len(text) // 2 : len(text) // 2 + 2]
    _, reply = shared_server.post("/v1/completions", _completion(max_tokens=40, stop=[middle, "never to be seen"]))
    choice = reply["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", middle)
    assert choice["text"] == text[: text.find(middle)]
    assert reply["usage"]["completion_tokens"] < 40


def test_end_of_sequence_ends_the_text(shared_server: Running) -> None:
    """Some seed samples <|end|> within 400 tokens; it is counted but not shown."""
    bodies = [_completion(seed=seed, max_tokens=400, ignore_eos=False, temperature=1.5) for seed in range(20)]
    with ThreadPoolExecutor(len(bodies)) as pool:
        replies = [reply for _, reply in pool.map(lambda body: shared_server.post("/v1/completions", body), bodies)]
    stopped = [reply for reply in replies if reply["choices"][0]["finish_reason"] == "stop"]
    assert stopped
    assert {reply["choices"][0]["stop_reason"] for reply in replies} == {None}
    assert all("<|end|>" not in reply["choices"][0]["text"] for reply in stopped)
    assert all(reply["usage"]["completion_tokens"] < 400 for reply in stopped)


def test_completion_logprobs(shared_server: Running) -> None:
    _, reply = shared_server.post("/v1/completions", _completion(logprobs=3, temperature=0))
    logprobs = reply["choices"][0]["logprobs"]
    assert {len(logprobs[k]) for k in ("tokens", "token_logprobs", "top_logprobs", "text_offset")} == {8}
    for token, value, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert value == max(top.values()) == top[token] < 0
    _, plain = shared_server.post("/v1/completions", _completion(temperature=0))
    assert plain["choices"][0]["logprobs"] is None
    assert plain["choices"][0]["text"] == reply["choices"][0]["text"]


def test_chat_logprobs(shared_server: Running) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 6, "logprobs": True, "top_logprobs": 2}
    _, reply = shared_server.post("/v1/chat/completions", {**body, "ignore_eos": True, "seed": 3})
    content = reply["choices"][0]["logprobs"]["content"]
    assert len(content) == 6
    assert all(len(entry["top_logprobs"]) == 2 and entry["logprob"] < 0 for entry in content)
    spelled = bytes(byte for entry in content for byte in entry["bytes"]).decode(errors="replace")
    assert spelled == reply["choices"][0]["message"]["content"]


@pytest.mark.parametrize("stop", [None, ["an", "1"]])
def test_streams_join_to_the_whole_reply(shared_server: Running, stop: list[str] | None) -> None:
    body = _completion(["Ann has 5", "Bo"], n=2, max_tokens=30, logprobs=1, stop=stop)
    _, whole = shared_server.post("/v1/completions", body)
    events = _stream(shared_server, "/v1/completions", {**body, "stream_options": {"include_usage": True}})
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == whole["usage"]
    for choice in whole["choices"]:
        chunks = [e["choices"][0] for e in events[:-1] if e["choices"][0]["index"] == choice["index"]]
        assert "".join(chunk["text"] for chunk in chunks) == choice["text"]
        assert [c["finish_reason"] for c in chunks if c["finish_reason"]] == [choice["finish_reason"]]
        assert [c["stop_reason"] for c in chunks] == [None] * (len(chunks) - 1) + [choice["stop_reason"]]
        for part in ("tokens", "text_offset", "token_logprobs"):
            assert [value for chunk in chunks for value in chunk["logprobs"][part]] == choice["logprobs"][part]


def test_chat_stream(shared_server: Running) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 12, "seed": 3}
    _, whole = shared_server.post("/v1/chat/completions", body)
    events = _stream(shared_server, "/v1/chat/completions", body)
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta["content"] for delta in deltas) == whole["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"model": "gpt-4"}, 404, "'gpt-4' is not served here; this server has 'tiny'"),
        ({"prompt": "x" * 3000}, 400, "tokens; the context length is 512"),
        ({"best_of": 4}, 400, "best_of=4"),
        ({"suffix": "x"}, 400, "suffix='x'"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty=0.5"),
        ({"frequency_penalty": -1}, 400, "frequency_penalty=-1"),
        ({"repetition_penalty": 1.1}, 400, "repetition_penalty=1.1"),
        ({"min_p": 0.1}, 400, "min_p=0.1"),
        ({"guided_json": {}}, 400, "guided_json"),
        ({"temperature": "hot"}, 400, "temperature='hot'; it must be a number"),
        ({"temperature": -0.1}, 400, "temperature=-0.1"),
        ({"temperature": True}, 400, "temperature=True"),
        ({"top_p": 0}, 400, "top_p"),
        ({"top_p": 1.5}, 400, "top_p=1.5"),
        ({"top_k": 2.5}, 400, "top_k=2.5; it must be an integer"),
        ({"n": 0}, 400, "n=0"),
        ({"seed": "a"}, 400, "seed='a'"),
        ({"stop": ""}, 400, "stop"),
        ({"stop": [1]}, 400, "stop=[1]"),
        ({"max_tokens": 0}, 400, "max_tokens=0"),
        ({"stream": 1}, 400, "stream=1; it must be true or false"),
        ({"logprobs": 100}, 400, "logprobs=100"),
        ({"prompt": []}, 400, "prompt must be"),
        ({"prompt": [[1], "a", 3]}, 400, "prompt must be"),
        ({"prompt": [100000]}, 400, "a token id is outside"),
        ({"prompt": [-1]}, 400, "a token id is outside"),
    ],
)
def test_refusals(shared_server: Running, fields: dict[str, Any], status: int, message: str) -> None:
    got, reply = shared_server.post("/v1/completions", _completion(**fields))
    assert got == status
    assert message in reply["error"]["message"]


def test_neutral_values_of_unsupported_fields_are_fine(shared_server: Running) -> None:
    neutral = {"echo": False, "best_of": 1, "presence_penalty": 0.0, "logit_bias": None, "user": "me", "top_k": -1}
    assert _texts(shared_server, _completion(**neutral)) == _texts(shared_server, _completion())


def test_bad_bodies(shared_server: Running) -> None:
    assert shared_server.post("/v1/completions", b"{not json")[0] == 400
    assert shared_server.post("/v1/completions", [1])[0] == 400
    assert shared_server.post("/v1/chat/completions", {"messages": "hi"})[0] == 400
    assert shared_server.post("/v1/chat/completions", {"messages": [{"role": "user"}]})[0] == 400
    status, reply = shared_server.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "top_logprobs": 1}
    )
    assert (status, reply["error"]["message"]) == (400, "top_logprobs=1 needs logprobs=true")


def test_models_health_and_metrics(shared_server: Running) -> None:
    assert json.loads(shared_server.get("/v1/models")[1])["data"][0]["id"] == "tiny"
    assert shared_server.get("/health")[0] == 200
    before = shared_server.gauge("generated_tokens_total")
    _texts(shared_server, _completion(max_tokens=5))
    assert shared_server.gauge("generated_tokens_total") == before + 5
    assert shared_server.gauge("kv_cache_usage") == 0
    kinds = {line.split()[-1] for line in shared_server.get("/metrics")[1].splitlines() if line.startswith("# TYPE")}
    assert kinds == {"counter", "gauge"}


def test_a_full_queue_answers_429(tiny_checkpoint: Path) -> None:
    async def run() -> None:
        model = Model(name="tiny", hf_path=str(tiny_checkpoint), context_length=512)
        engine = load_engine(Config(max_batch_size=1), model)
        app = Api(engine, ChatTemplate.of(model), "tiny", max_queue=2).application()
        status, reply = await _ask(app, "POST", "/v1/completions", _completion(n=3))
        assert (status, "send fewer at once" in str(reply)) == (400, True), "it would never fit"
        waiting = asyncio.create_task(_ask(app, "POST", "/v1/completions", _completion(n=2)))
        while not engine.waiting:
            await asyncio.sleep(0)
        status, reply = await _ask(app, "POST", "/v1/completions", _completion())
        assert status == 429 and "max_queue is 2; retry later" in reply["error"]["message"]
        working = asyncio.create_task(engine.run())
        assert (await waiting)[0] == 200
        assert (await _ask(app, "POST", "/v1/completions", _completion(n=2)))[0] == 200
        working.cancel()

    asyncio.run(run())


def test_a_server_that_drains_refuses_more() -> None:
    api = Api(None, None, "tiny", 8)  # type: ignore[arg-type]
    app = api.application()
    assert asyncio.run(_ask(app, "GET", "/health")) == (200, {"status": "ok"})
    api.draining = True
    assert asyncio.run(_ask(app, "GET", "/health"))[0] == 503
    status, reply = asyncio.run(_ask(app, "POST", "/v1/completions"))
    assert status == 503 and "shutting down" in reply["error"]["message"]
    assert api.in_flight == 0


async def _ask(app: Starlette, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Without a socket."""
    arriving, sent = [{"type": "http.request", "body": json.dumps(body).encode()}], list[Any]()

    async def receive() -> dict[str, Any]:
        if not arriving:
            await asyncio.Event().wait()  # the client stays
        return arriving.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slots(shared_server: Running, stream: bool) -> None:
    """1,000 sequences of 500 tokens would take 500,000. Meanwhile others are answered."""
    before = shared_server.gauge("generated_tokens_total")
    connection = HTTPConnection(shared_server.url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(_completion(n=1000, max_tokens=10_000, stream=stream)))
    wait_until(lambda: shared_server.gauge("running") == 32)
    assert shared_server.get("/health")[0] == 200
    assert 0 < shared_server.gauge("kv_cache_usage") < 1
    assert shared_server.gauge("waiting") > 0, "it is still busy"
    assert connection.sock is not None
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    wait_until(lambda: shared_server.gauge("running") == 0 and shared_server.gauge("waiting") == 0)
    assert shared_server.gauge("generated_tokens_total") - before < 400_000


def test_sigterm_finishes_work_in_flight(start_server: StartServer) -> None:
    server = start_server(max_batch_size=2)
    with ThreadPoolExecutor(4) as pool:
        body = _completion(n=2, max_tokens=200)
        jobs = [pool.submit(server.post, "/v1/completions", body) for _ in range(4)]

        def accepted() -> float:
            """Sequences; in this order, one that moves on between two looks is counted once at most."""
            return 2 * sum(job.done() for job in jobs) + server.gauge("running") + server.gauge("waiting")

        wait_until(lambda: accepted() == 8)
        server.process.send_signal(signal.SIGTERM)
        assert [job.result()[0] for job in jobs] == [200] * 4
    assert server.process.wait(60) == 0
    assert not server.address_file.exists()
