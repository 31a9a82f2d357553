"""The worked examples in conf/few_shot: right, in the form they teach, and not taken from a benchmark."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from nemo_ext.curation.arithmetic.statements import wrong_statement
from nemo_ext.curation.contamination.retrieve import Retriever
from nemo_ext.curation.filter_chain import Step, apply
from nemo_ext.grading.equal import equal
from nemo_ext.grading.extract import extract_answer

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"

# Solved again by hand, apart from the worked solutions.
ANSWERS = {
    "math_text_detailed": [r"\frac{175}{8}", "10", r"\frac{10}{21}", r"\frac{486}{25}"],
    "gsm8k_text_detailed": ["107", "3", "22.5", "24", "66"],
}
NEW_PROBLEMS = {"math_problem_augmentation": 4, "gsm8k_problem_augmentation": 8}


def _examples(name: str) -> list[dict[str, str]]:
    return yaml.safe_load((ROOT / "conf/few_shot" / f"{name}.yaml").read_text())["examples"]


@pytest.mark.parametrize("name", ANSWERS)
def test_worked_solutions_are_right(name: str) -> None:
    examples = _examples(name)
    steps = [Step("multiple_boxes"), Step("no_box"), Step("incorrect_arithmetic"), Step("solution_too_short")]
    for example, answer in zip(examples, ANSWERS[name], strict=True):
        assert set(example) == {"problem", "solution"}
        assert apply({"problem": example["problem"], "generation": example["solution"]}, steps)[1] is None
        assert equal(extract_answer(example["solution"]), answer)


def test_the_arithmetic_check_reads_these_solutions() -> None:
    for example in _examples("gsm8k_text_detailed"):
        assert wrong_statement(example["solution"].replace("* ", "* 1"), 1e-4) or " * " not in example["solution"]


def test_recomputed_answers() -> None:
    r, s = (7 + 17**0.5) / 4, (7 - 17**0.5) / 4
    assert r**3 + s**3 == pytest.approx(175 / 8)
    assert (7**2023 + 3**2023) % 20 == 10
    assert pytest.approx(486 / 25) == 9 * 12 / 2 * (9 / 15) ** 2
    assert pytest.approx(22.5) == (240 - 240 / 4) / (12 - 4)


@pytest.mark.parametrize("name", NEW_PROBLEMS)
def test_problem_pairs(name: str) -> None:
    examples = _examples(name)
    assert len(examples) == NEW_PROBLEMS[name]
    for example in examples:
        assert set(example) == {"problem", "new_problem"}
        assert example["problem"] != example["new_problem"]


def _problem(row: dict[str, Any]) -> str:
    """Under whatever columns a benchmark's own file keeps it."""
    columns = ("problem", "body", "Body", "question", "Question", "input")
    text = " ".join(str(row[column]) for column in columns if column in row)
    assert text, sorted(row)
    return text


@pytest.mark.parametrize("path", sorted((ROOT / "conf/few_shot").glob("*_detailed.yaml")), ids=lambda path: path.stem)
def test_examples_are_not_benchmark_problems(path: Path) -> None:
    if not DATA.exists():
        pytest.skip(f"{DATA} is missing")
    known = []
    for file in sorted(DATA.glob("*_test.jsonl")):
        known += [_problem(row) for row in map(json.loads, file.read_text().splitlines())]
    problems = [example["problem"] for example in _examples(path.stem)]
    assert problems
    assert Retriever([known]).top_k(problems, k=1).scores.max() < 0.6
