"""compare: a table and words of evaluations on disk; other contracts are refused before anything starts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.evaluation.problems import count_problems
from nemo_ext.evaluation.scores import write_scores
from recipes import run_stage
from tests.nemo_ext.evaluation.contracts import contract
from tests.recipes.conftest import write_config


@pytest.fixture
def evaluations(tmp_path: Path) -> Callable[..., str]:
    def make(name: str, right: int, **terms: Any) -> str:
        rows = [
            {"benchmark": "amc", "id": str(i), "problem": f"P{i}", "expected_answer": "1", "predicted_answer": "1",
             "is_correct": i < right}
            for i in range(40)
        ]  # fmt: skip
        folder = tmp_path / "evaluate" / name
        folder.mkdir(parents=True)
        (folder / "output.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_scores(folder, name, contract(**terms), list(count_problems(rows)))
        return str(folder)

    return make


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Path]:
    """Checks and runs the stage, as the launcher and its process do."""

    def run(*evaluations: str, **keys: Any) -> Path:
        path = write_config(tmp_path / "out", "compare", {"evaluations": list(evaluations), **keys})
        module, config = run_stage.load(path)
        module.check(config)
        run_stage.run(path)
        return path.parent

    return run


def test_the_first_with_each_of_the_others(evaluations: Any, start: Any, tmp_path: Path) -> None:
    base = evaluations("base", 10)
    evaluations("checkpoint_1", 11)
    evaluations("checkpoint_2", 25)
    out = start(base, str(tmp_path / "evaluate"))
    found = json.loads((out / "comparison.json").read_text())
    assert [(each["second"], each["benchmarks"]["amc"]["gained"]) for each in found] == [
        ("checkpoint_1", 1),
        ("checkpoint_2", 15),
    ]
    told = (out / "comparison.txt").read_text()
    assert "contracts" not in told and told.count("amc") == 4
    assert "checkpoint_2 solves 25 of 40, 37.5 points more than base (10)" in told
    figures = json.loads((out / "manifest.json").read_text())["figures"]
    assert figures["checkpoint_1 - base, amc"].startswith("+2.5 points (+0.0 to")


def test_other_contracts(evaluations: Any, start: Any, tmp_path: Path) -> None:
    pair = evaluations("base", 10), evaluations("tuned", 20, prompt_hash="q")
    with pytest.raises(
        ValueError, match=r"differ in prompt_hash: 'p' against 'q'.*stages\.out\.allow_contract_mismatch=true"
    ):
        start(*pair)
    assert not (tmp_path / "out" / ".lock").exists(), "before the stage starts"
    told = (start(*pair, allow_contract_mismatch=True) / "comparison.txt").read_text()
    assert told.startswith("base and tuned were scored under different contracts: prompt_hash: 'p' against 'q'\n")


def test_too_few(evaluations: Any, start: Any) -> None:
    with pytest.raises(ValueError, match="evaluations is empty"):
        start()
    with pytest.raises(ValueError, match="got one evaluation"):
        start(evaluations("base", 10))
