"""generate with Python at hand: launcher, sandbox service, client and loop together; the model is scripted."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.nemo_ext.serving.fake_server import FakeServer, fake  # noqa: F401 - a fixture
from tests.recipes.conftest import lines


async def scripted(request: web.Request, number: int) -> web.Response:
    """Sets a variable in its first block, uses it in its second, and boxes what it was shown."""
    body = await request.json()
    text = body["prompt"]
    shown = re.findall(r"<llm-code-output>\n(.*?)\n</llm-code-output>", text, re.DOTALL)
    a, b = re.findall(r"\d+", text.rpartition("What is")[2])[:2]
    if not shown:
        said = f"I set it up.\n<llm-code>\nx = {a} * {b}\nx\n"
    elif len(shown) == 1:
        said = "And check.\n<llm-code>\nfor i in range(2):\n    print(x + i)\n"
    else:
        said = f"\nSo the answer is \\boxed{{{shown[0]}}}."
    assert "</llm-code>" in body["stop"] or shown
    usage = {"prompt_tokens": len(text) // 4, "completion_tokens": 10}
    return web.json_response({"choices": [{"index": 0, "text": said, "finish_reason": "stop"}], "usage": usage})


@pytest.mark.timeout(120)
def test_a_trace_keeps_its_state(fake, finish: Callable[..., str], tmp_path: Path) -> None:  # noqa: F811
    server: FakeServer = fake(scripted)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"problem": f"What is {i} times {i + 1}?"}) + "\n" for i in range(2, 22)))
    words = ["+recipe=generate", f"input={rows}", "server=external", f"server.urls=[{server.endpoint.url}]"]
    words += ["prompt=generic_math", "prompt.template=base", "prompt.system=null", "sampling.max_tokens=400"]
    finish(*words, "use_tools=true")
    output: list[dict[str, Any]] = lines(tmp_path / "generate" / "generate" / "output.jsonl")
    assert len(output) == 20
    for i, row in enumerate(output, start=2):
        product = i * (i + 1)
        assert row["generation"].endswith(f"\\boxed{{{product}}}.")
        assert f"<llm-code-output>\n{product}\n{product + 1}\n</llm-code-output>" in row["generation"]
        assert row["trace"] == {"executions": 2, "errors": {}, "ended": "answer"}
        assert row["num_generated_tokens"] == 30
    log = (tmp_path / "generate" / "generate" / "logs" / "sandbox.log").read_text()
    assert "isolation: " in log
