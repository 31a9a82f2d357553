"""The tool loop with a scripted model and the real sandbox."""

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest

from nemo_ext.curation.code_blocks import blocks
from nemo_ext.sandbox.config import ToolLoopConfig
from nemo_ext.sandbox.remote import SandboxDown
from nemo_ext.sandbox.tool_loop import Send, ToolLoop
from nemo_ext.serving.client.requests import Completion, Request
from tests.nemo_ext.sandbox.conftest import Service, sleeping, stop, wait_until
from tests.nemo_ext.sandbox.scripted_model import PROMPT, ScriptedModel, request, trace

SERVERS = pytest.mark.parametrize(
    "server", [{}, {"says_reason": False}, {"keeps_stop": True}, {"says_reason": False, "keeps_stop": True}], ids=str
)


@SERVERS
def test_llm_code_trace_byte_for_byte(any_sandbox: Service, server: dict[str, bool]) -> None:
    model = ScriptedModel(
        [
            "Let us compute.\n<llm-code>\nx = 6\nx * 7\n</llm-code>\n<llm-code-output>\n13",
            "And again.\n<llm-code>\nfor i in range(2):\n    print(x + i)\n</llm-code>",
            "So it is \\boxed{42}.",
        ],
        **server,
    )
    done = trace(any_sandbox, model)
    assert done.text == (
        "Let us compute.\n<llm-code>\nx = 6\nx * 7\n</llm-code>\n<llm-code-output>\n42\n</llm-code-output>\n"
        "And again.\n<llm-code>\nfor i in range(2):\n    print(x + i)\n</llm-code>\n"
        "<llm-code-output>\n6\n7\n</llm-code-output>\n"
        "So it is \\boxed{42}."
    )
    assert done.trace == {"executions": 2, "errors": {}, "ended": "answer"}
    assert (done.finish_reason, done.num_prompt_tokens, done.error) == ("stop", len(PROMPT), None)
    assert PROMPT + done.text == f"{model.requests[-1].prompt}So it is \\boxed{{42}}."


@SERVERS
def test_fenced_trace_byte_for_byte(any_sandbox: Service, server: dict[str, bool]) -> None:
    model = ScriptedModel(
        ["Plan.\n```python\nx = 6\nprint(x * 7)\n```\n```output\n13\n```\n", "Thus \\boxed{42}."], **server
    )
    done = trace(any_sandbox, model, format="fenced")
    assert done.text == "Plan.\n```python\nx = 6\nprint(x * 7)\n```\n```output\n42\n```\nThus \\boxed{42}."
    assert done.trace == {"executions": 1, "errors": {}, "ended": "answer"}


@pytest.mark.parametrize(
    "written", ["```python\n6 * 7\n```", "```python\n6 * 7\n```\n", "```python\n6 * 7\n```output\n"]
)
def test_fenced_block_that_ends_the_text_is_executed(any_sandbox: Service, written: str) -> None:
    done = trace(any_sandbox, ScriptedModel([written, "\\boxed{42}"]), format="fenced")
    assert done.text == "```python\n6 * 7\n```\n```output\n42\n```\n\\boxed{42}"


@SERVERS
@pytest.mark.parametrize(
    "written",
    [
        "``` python\n3 + 4\n```\n```output\n",
        "```python3\n3 + 4\n```\n```output\n",
        "1. Run:\n   ```python\n   3 + 4\n   ```\n   ```output\n",
        "```python\r\n3 + 4\r\n```\r\n```output\r\n",
        "```python\nprint(3 + 4)```\n```output\n",
        "```python\nprint(3 + 4)```output\n",
        "```python\n    3 + 4\n```\n``` output\n",
        "```python\n    3 + 4\n    ```output\n",
    ],
)
def test_fenced_blocks_as_models_write_them(any_sandbox: Service, server: dict[str, bool], written: str) -> None:
    if server == {"says_reason": False} and not written.replace("``` output", "```output").endswith("\n```output\n"):
        pytest.skip("a server that neither keeps nor names its stop string hides that this block was closed")
    done = trace(any_sandbox, ScriptedModel([written + "invented", "\\boxed{7}"], **server), format="fenced")
    assert done.trace == {"executions": 1, "errors": {}, "ended": "answer"}
    assert done.text.endswith("```\n```output\n7\n```\n\\boxed{7}")
    assert [block.kind for block in blocks(done.text) or ()] == ["code", "output"]


@pytest.mark.parametrize(
    ("form", "written", "shown"),
    [
        ("fenced", "```python\nprint('```\\n```python\\n1')\n```\n", "````output\n```\n```python\n1\n````\n"),
        (
            "llm_code",
            "<llm-code>\nprint('</llm-code-' + 'output>')\n</llm-code>",
            "<llm-code-output>\n&lt;/llm-code-output>\n</llm-code-output>\n",
        ),
    ],
)
def test_what_a_block_prints_does_not_end_its_frame(any_sandbox: Service, form: str, written: str, shown: str) -> None:
    done = trace(any_sandbox, ScriptedModel([written, "So \\boxed{1}."]), format=form)
    assert done.trace == {"executions": 1, "errors": {}, "ended": "answer"}
    assert done.text.endswith(f"\n{shown}So \\boxed{{1}}.")
    assert [block.kind for block in blocks(done.text) or ()] == ["code", "output"]


def test_only_the_models_words_are_counted(any_sandbox: Service) -> None:
    model = ScriptedModel(["<llm-code>\nprint('y' * 100)\n</llm-code>", "\\boxed{1}"])
    done = trace(any_sandbox, model)
    assert done.num_generated_tokens == len("<llm-code>\nprint('y' * 100)\n</llm-code>") + len("\\boxed{1}")


def test_segments_keep_the_sampling_and_advance_the_seed(any_sandbox: Service) -> None:
    model = ScriptedModel(["<llm-code>\n1\n</llm-code>", "<llm-code>\n2\n</llm-code>", "end"])
    done = trace(any_sandbox, model, request(seed=7, temperature=0.5, max_tokens=900))
    assert [one.sampling.seed for one in model.requests] == [7, 8, 9]
    assert done.seed == 7
    assert {one.sampling.stop for one in model.requests} == {("\n\n\nProblem:", "</llm-code>")}
    assert {one.sampling.temperature for one in model.requests} == {0.5}


def test_a_users_stop_string_ends_the_trace(any_sandbox: Service) -> None:
    done = trace(any_sandbox, ScriptedModel(["It is \\boxed{2}\n\n\nProblem: next <llm-code>\n1\n</llm-code>"]))
    assert (done.text, done.trace) == ("It is \\boxed{2}", {"executions": 0, "errors": {}, "ended": "answer"})
    done = trace(any_sandbox, ScriptedModel(["I do not know\n\n\nProblem:"]))
    assert done.trace is not None
    assert done.trace["ended"] == "stop"


def test_total_tokens_are_never_exceeded(any_sandbox: Service) -> None:
    code = "<llm-code>\nprint('y' * 150)\n</llm-code>"
    for total in range(40, 800, 23):
        model = ScriptedModel([code] * 9)
        done = trace(any_sandbox, model, request(max_tokens=300), max_total_tokens=total, max_executions=5)
        assert done.finish_reason == "length" or done.trace["ended"] == "max_executions"  # type: ignore[index]
        for one in model.requests:
            assert 0 < one.sampling.max_tokens <= 300
            assert len(one.prompt) - len(PROMPT) + one.sampling.max_tokens <= total


def test_without_a_total_the_samplings_limit_is_the_traces(any_sandbox: Service) -> None:
    model = ScriptedModel(["<llm-code>\n1\n</llm-code>", "w" * 1000])
    done = trace(any_sandbox, model, request(max_tokens=200))
    assert (done.finish_reason, done.trace) == ("length", {"executions": 1, "errors": {}, "ended": "length"})
    assert len(done.text) == 200


def test_a_block_cut_by_the_token_limit_is_not_executed(any_sandbox: Service) -> None:
    written = "<llm-code>\nopen('/tmp/ran', 'w')\n</llm-code>"
    done = trace(any_sandbox, ScriptedModel([written], says_reason=False), request(max_tokens=len(written) - 5))
    assert done.trace == {"executions": 0, "errors": {}, "ended": "length"}
    assert done.text == written[:-5]


def test_max_executions_ends_the_trace(any_sandbox: Service) -> None:
    model = ScriptedModel(["<llm-code>\n1\n</llm-code>"] * 9)
    done = trace(any_sandbox, model, max_executions=2)
    assert done.trace == {"executions": 2, "errors": {}, "ended": "max_executions"}
    assert done.text.count("<llm-code-output>") == 2
    assert done.text.endswith("<llm-code>\n1\n</llm-code>")


def test_max_executions_can_be_told_to_the_model(any_sandbox: Service) -> None:
    text = "Max code executions reached"
    model = ScriptedModel(["<llm-code>\n1\n</llm-code>", "<llm-code>\n2\n</llm-code>", "Then \\boxed{3}"])
    done = trace(any_sandbox, model, max_executions=1, max_executions_text=text)
    assert done.text.endswith(f"</llm-code>\n<llm-code-output>\n{text}\n</llm-code-output>\nThen \\boxed{{3}}")
    assert done.trace == {"executions": 1, "errors": {}, "ended": "answer", "results": 2}
    done = trace(any_sandbox, ScriptedModel(model.script[:2] * 4), max_executions=1, max_executions_text=text)
    assert (done.trace["ended"], done.text.count(text)) == ("max_executions", 1)  # type: ignore[index]


def test_an_error_ends_the_trace_or_goes_on(any_sandbox: Service) -> None:
    script = ["<llm-code>\nx = 1\n1 / 0\n</llm-code>", "<llm-code>\nx\n</llm-code>", "\\boxed{1}"]
    done = trace(any_sandbox, ScriptedModel(script))
    assert done.trace == {"executions": 1, "errors": {"error": 1}, "ended": "error"}
    assert done.text.endswith("ZeroDivisionError: division by zero\n</llm-code-output>\n")
    done = trace(any_sandbox, ScriptedModel(script), on_error="go_on")
    assert done.trace == {"executions": 2, "errors": {"error": 1}, "ended": "answer"}
    assert "<llm-code-output>\n1\n</llm-code-output>" in done.text


def test_a_restarted_trace_knows_nothing_of_the_one_before(any_sandbox: Service) -> None:
    """Its text, its names and its result are gone; the blocks it executed stay counted."""
    script = [
        "<llm-code>\nx = 1\n1 / 0\n</llm-code>",
        "Anew.\n<llm-code>\nprint('x' in globals())\n</llm-code>",
        "\\boxed{1}",
    ]
    model = ScriptedModel(script)
    done = trace(any_sandbox, model, request(seed=7), on_error="restart")
    assert (
        done.text
        == "Anew.\n<llm-code>\nprint('x' in globals())\n</llm-code>\n<llm-code-output>\nFalse\n</llm-code-output>\n\\boxed{1}"
    )
    assert done.trace == {"executions": 2, "errors": {"error": 1}, "ended": "answer", "results": 1, "restarts": 1}
    assert [asked.prompt for asked in model.requests[:2]] == [PROMPT, PROMPT]
    assert [asked.sampling.seed for asked in model.requests] == [7, 8, 9]
    assert [asked.sampling.max_tokens for asked in model.requests[:2]] == [1000, 1000]


def test_restarts_end_with_the_blocks_a_trace_may_execute(any_sandbox: Service) -> None:
    model = ScriptedModel(["<llm-code>\n1 / 0\n</llm-code>"] * 3 + ["\\boxed{1}"])
    done = trace(any_sandbox, model, on_error="restart", max_executions=3)
    assert done.trace == {"executions": 3, "errors": {"error": 3}, "ended": "answer", "results": 1, "restarts": 2}
    assert done.text.count("ZeroDivisionError: division by zero") == 1, "the model reads the last one"


def test_state_survives_a_block_that_was_stopped(any_sandbox: Service) -> None:
    """The model is not told that its names are gone, because they are not: the session was rebuilt."""
    script = [
        "<llm-code>\nx = 5\n</llm-code>",
        "<llm-code>\nimport time\nwhile True: time.sleep(0.01)\n</llm-code>",
        "<llm-code>\nx\n</llm-code>",
        ".",
    ]
    done = trace(any_sandbox, ScriptedModel(script), on_error="go_on", timeout_s=2)
    assert done.trace == {"executions": 3, "errors": {"timeout": 1}, "ended": "stop"}
    assert "TimeoutError: the block ran longer than 2 s and was stopped\n</llm-code-output>" in done.text
    assert done.text.endswith("<llm-code-output>\n5\n</llm-code-output>\n.")


def test_long_output_is_cut_as_configured(any_sandbox: Service) -> None:
    script = ["<llm-code>\nprint('a' * 50 + 'b' * 50)\n</llm-code>", "."]
    done = trace(any_sandbox, ScriptedModel(script), max_output_chars=10)
    assert "\naaaaaaaaaa<output cut>\n</llm-code-output>" in done.text
    done = trace(any_sandbox, ScriptedModel(script), max_output_chars=10, cut="head_tail", cut_marker=" ... ")
    assert "\naaaaa ... bbbbb\n</llm-code-output>" in done.text


def test_a_failed_request_is_returned_as_it_is(any_sandbox: Service) -> None:
    async def refuses(asked: Request) -> Completion:
        return Completion(asked.key, "", None, 0, 0, 0.1, "HTTP 400: no", 1, error_kind="400")

    done = trace(any_sandbox, refuses)
    assert (done.key, done.error) == ("key", "HTTP 400: no")


def test_a_trace_that_outgrows_the_context_keeps_its_text(any_sandbox: Service) -> None:
    first = ScriptedModel(["<llm-code>\n1\n</llm-code>"])

    async def send(asked: Request) -> Completion:
        if not first.requests:
            return await first(asked)
        return Completion(asked.key, "", None, 0, 0, 0.1, "too long", 1, error_kind="prompt_too_long")

    done = trace(any_sandbox, send)
    assert (done.error, done.finish_reason, done.trace) == (
        None,
        "length",
        {"executions": 1, "errors": {}, "ended": "length"},
    )
    assert done.text.endswith("</llm-code-output>\n")


def test_what_a_tool_loop_cannot_do_is_refused(any_sandbox: Service) -> None:
    with pytest.raises(ValueError, match="render the chat template"):
        trace(any_sandbox, ScriptedModel([]), replace(request(), prompt=[{"role": "user", "content": "x"}]))
    with pytest.raises(ValueError, match="one sample per request"):
        trace(any_sandbox, ScriptedModel([]), replace(request(), more_keys=("other",)))
    with pytest.raises(ValueError, match="no sandbox"):
        ToolLoop([], ToolLoopConfig(), "")


def test_sessions_end_with_their_traces(start: Callable[..., Service]) -> None:
    service = start()
    script = ["<llm-code>\n1\n</llm-code>", "."]

    async def run() -> None:
        async with ToolLoop([service.url], ToolLoopConfig(), service.token) as loop:
            await asyncio.gather(*(loop(request(), ScriptedModel(script)) for _ in range(20)))

    asyncio.run(run())
    assert service.health["sessions"] == 0
    assert service.health["executions"] == {"ok": 20}


def test_a_cancelled_trace_leaves_no_processes(start: Callable[..., Service]) -> None:
    """Once while the sandbox runs a block, once while the model writes."""
    service = start()
    idle = len(service.descendants)

    async def run(model: Send, until: Callable[[], object]) -> None:
        async with ToolLoop([service.url], ToolLoopConfig(), service.token) as loop:
            task = asyncio.create_task(loop(request(), model))
            while not until():
                await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    busy = ScriptedModel(["<llm-code>\nimport os\nos.system('sleep 60')\n</llm-code>"])
    asyncio.run(run(busy, lambda: sleeping(service.process.pid)))
    first = ScriptedModel(["<llm-code>\n1\n</llm-code>"])
    asked: list[Request] = []

    async def hangs(one: Request) -> Completion:
        if not first.requests:
            return await first(one)
        asked.append(one)
        await asyncio.sleep(60)
        raise AssertionError("it is cancelled")

    asyncio.run(run(hangs, lambda: asked))
    assert service.health["sessions"] == 0
    wait_until(lambda: len(service.descendants) <= idle)


def test_a_trace_survives_a_restart_of_the_sandbox(start: Callable[..., Service]) -> None:
    service = start()
    port = service.url.rpartition(":")[2]
    inner = ScriptedModel(["<llm-code>\nx = 5\n</llm-code>", "<llm-code>\nx + 1\n</llm-code>", "\\boxed{6}"])

    async def send(asked: Request) -> Completion:
        if len(inner.requests) == 1:
            stop(service)
            await asyncio.to_thread(start, "--port", port)
        return await inner(asked)

    done = trace(service, send)
    assert done.text.endswith("<llm-code-output>\n6\n</llm-code-output>\n\\boxed{6}")


def test_a_trace_moves_to_another_sandbox(start: Callable[..., Service], any_sandbox: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"

    async def run() -> list[Completion]:
        async with ToolLoop([nobody, any_sandbox.url], ToolLoopConfig(patience_s=20), any_sandbox.token) as loop:
            models = [ScriptedModel(["<llm-code>\n6 * 7\n</llm-code>", "."]) for _ in range(6)]
            return await asyncio.gather(*(loop(request(), model) for model in models))

    assert all("\n42\n" in done.text for done in asyncio.run(run()))


def test_a_full_sandbox_is_waited_for(start: Callable[..., Service]) -> None:
    service = start(max_sessions=2)

    async def run() -> list[Completion]:
        async with ToolLoop([service.url], ToolLoopConfig(), service.token) as loop:
            models = [ScriptedModel(["<llm-code>\n6 * 7\n</llm-code>", "."]) for _ in range(8)]
            return await asyncio.gather(*(loop(request(), model) for model in models))

    assert all("\n42\n" in done.text for done in asyncio.run(run()))


def test_no_sandbox_stops_the_run_with_a_reason(any_sandbox: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        nobody = Service(any_sandbox.process, url, any_sandbox.log, any_sandbox.token)
    with pytest.raises(SandboxDown, match=r"has not run a block for 0.3 s: ClientConnectorError.*Look at its log"):
        trace(nobody, ScriptedModel(["<llm-code>\n1\n</llm-code>"]), patience_s=0.3)


def test_tools_go_into_a_json_row(any_sandbox: Service) -> None:
    done = trace(any_sandbox, ScriptedModel(["<llm-code>\n1 / 0\n</llm-code>"]))
    assert json.loads(json.dumps(done.trace)) == done.trace
