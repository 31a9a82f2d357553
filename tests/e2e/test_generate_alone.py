"""+recipe=generate: a person's own file, any server, one command."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.errors import HydraException

from launchers.planning import plan
from tests.composing import compose_recipe
from tests.nemo_ext.serving.faulty_server import Server, servers
from tests.recipes.conftest import lines

Finish = Callable[..., str]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with servers(1) as (started,):
        yield started


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    problems = [{"problem": f"What is {i} + {i}?", "mine": i} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in problems) + "no json\n" + '{"topic": "?"}\n')
    return path


def _output(tmp_path: Path, run: str = "generate") -> list[dict[str, Any]]:
    return lines(tmp_path / run / "generate" / "output.jsonl")


def test_any_url(finish: Finish, server: Server, rows: Path, tmp_path: Path) -> None:
    said = finish(
        "+recipe=generate", f"input={rows}", "prompt=math_base", "prompt.few_shot=gsm8k_text_detailed", "server=external",
        f"server.urls=[{server.url}/v1]", "server.concurrency=4", "num_samples=3", "sampling.temperature=0.7",
    )  # fmt: skip
    output = _output(tmp_path)
    assert [(row["mine"], row["sample_index"]) for row in output] == [(i, s) for i in range(20) for s in range(3)]
    assert "1 malformed_json" in said and "1 missing_problem" in said
    manifest = json.loads((tmp_path / "generate" / "generate" / "manifest.json").read_text())
    assert manifest["models"] == {"faulty": "as served"} and manifest["server"]["honours_n"] is True
    assert manifest["tokens"]["prompt"] == 20 * 7, "three samples a request"
    assert output[3]["seed"] == output[5]["seed"] and output[5]["choice"] == 2
    assert len({row["generation"] for row in output}) == 60


def test_here_on_the_cpu(finish: Finish, rows: Path, tmp_path: Path) -> None:
    finish("+recipe=generate", "+scale=tiny", f"input={rows}", "sampling.max_tokens=8")
    assert len(_output(tmp_path, "generate_tiny")) == 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prompt=no_such"], "Available options in 'prompt': generic_math"),
        (["prompt.few_shot=no_such"], "no conf/few_shot/no_such.yaml; conf/few_shot has: gsm8k"),
        (["prompt=math_base", "prompt.few_shot=[]"], "`user` has {examples}, but few_shot is empty"),
        (["prompt=math_base", "prompt.few_shot=toy_new_math"], "example 1 of conf/few_shot/toy_new_math.yaml"),
        (["num_samples=2"], "at temperature 0 are the same one"),
        (["samples_per_request=0"], "samples_per_request=0: it must be at least 1"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(words: list[str], message: str) -> None:
    with pytest.raises((ValueError, HydraException)) as raised:
        plan.resolve(compose_recipe("generate", "server=external", "server.urls=[http://h:1]", *words), Path("runs/x"))
    assert message in " ".join(str(raised.value).split())


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["server.model=teacher"], 1, "has faulty and not teacher: the wrong model"),
        (["prompt=judge_same_problem"], 1, "no row has 'other_problem', which prompt judge_same_problem needs"),
        (["input=/no/such/file.jsonl"], 2, "there is no /no/such/file.jsonl"),
        (["server.api_key_env=NOT_SET_ANYWHERE"], 1, "environment variable NOT_SET_ANYWHERE is not set"),
        (["input=???"], 2, "needs input=, which is not set"),
        (["any_model=false"], 1, "has faulty and not"),
    ],
)
def test_what_is_wrong_is_said_before_a_token_is_paid_for(
    finish: Finish, server: Server, rows: Path, tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    urls = f"server.urls=[{server.url}]"
    said = finish("+recipe=generate", f"input={rows}", "server=external", urls, *words, code=code)
    assert message in " ".join(said.split())
    assert "Traceback" not in said
    completions = tmp_path / "generate" / "generate" / "completions.jsonl"
    assert not completions.exists() or not completions.read_bytes()
