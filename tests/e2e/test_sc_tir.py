"""Self-consistency with tools, whole: launcher, sandbox, restarts, early finish and the vote; the model is scripted."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tokenizers import Tokenizer

from tests.conftest import ROOT
from tests.nemo_ext.serving.fake_server import FakeServer, fake  # noqa: F401 - a fixture
from tests.recipes.conftest import lines

TOKENIZER = Tokenizer.from_file(str(ROOT / "nemo_ext/serving/embedded/models/tiny_teacher/tokenizer.json"))


def read(prompt: str | list[int]) -> str:
    """A rendered prompt comes as token ids."""
    return prompt if isinstance(prompt, str) else TOKENIZER.decode(prompt, skip_special_tokens=False)


async def scripted(request: web.Request, number: int) -> web.Response:
    """By its seed: code that fails and, restarted, words with a wrong answer; or code that is right, and its result boxed."""
    body = await request.json()
    text, seed = read(body["prompt"]), body.get("seed", 3)
    errs = seed % 10 == 0
    a, b = re.findall(r"\d+", text.rpartition("What is")[2])[:2]
    shown = re.findall(r"```output\n(.*?)\n```", text, re.DOTALL)
    if shown:
        said = f"\nSo it is \\boxed{{{shown[-1]}}}."
    elif errs:
        said = "Let me see.\n```python\nprint(1 / 0)\n```\n"
    elif seed % 10 == 1:  # the segment after one that failed
        said = "It must be \\boxed{999999}."
    else:
        said = f"I compute.\n```python\nx = {a} * {b}\nprint(x)\n```\n"
    ids = TOKENIZER.encode(text, add_special_tokens=body.get("add_special_tokens", True)).ids
    usage = {"prompt_tokens": len(ids), "completion_tokens": 10}
    return web.json_response({"choices": [{"index": 0, "text": said, "finish_reason": "stop"}], "usage": usage})


@pytest.mark.timeout(180)
def test_most_traces_are_right_and_the_vote_is(fake, finish: Callable[..., str], tmp_path: Path) -> None:  # noqa: F811
    server: FakeServer = fake(scripted)
    problems = tmp_path / "test.jsonl"
    asked = [{"problem": f"What is {i} times {i + 97}?", "answer": str(i * (i + 97) % 1000)} for i in range(31, 43)]
    problems.write_text("".join(json.dumps(row) + "\n" for row in asked))
    words = ["+recipe=sc_tir", f"benchmarks=[{problems}]", "server=external", f"server.urls=[{server.endpoint.url}]"]
    rule = [
        "rule.integers=true",
        "rule.modulus=1000",
        "rule.non_negative=true",
        "rule.window_chars=100",
        'rule.default="0"',
    ]
    tiny = ["model@teacher=tiny_teacher", "sizes.width=9", "sizes.depth=3", "sizes.answer_tokens=300"]
    # two samples of each problem at a time: those that err, of which the first two have six, come before a majority
    finish(*words, *rule, *tiny, "server.concurrency=24")
    run = tmp_path / "sc_tir"
    traces: list[dict[str, Any]] = lines(run / "sample" / "output.jsonl")
    restarted = [row for row in traces if row["trace"].get("restarts")]
    assert restarted and all("1 / 0" not in row["generation"] for row in restarted)
    assert any(row["predicted_answer"] == "999999" for row in traces), "wrong ones are among them"
    assert any("```output\n" in row["generation"] and row["trace"]["executions"] == 1 for row in traces)
    assert lines(run / "sample" / "dropped.jsonl"), "some were not needed"
    scores = json.loads((run / "choose" / "scores.json").read_text())
    [scored] = scores["benchmarks"].values()
    assert (scored["problems"], scored["correct"]) == (12, 12)
    assert scores["contract"]["grader"] == "integer_mod_1000"
    assert "early finish, majority@all (window_chars=100" in scores["contract"]["search"]
    assert "explore/index.html" in (run / "report.html").read_text()
