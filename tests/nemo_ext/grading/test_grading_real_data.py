"""OpenAI's own labels of 5,276 model solutions to GSM8K, and every answer of the benchmarks (../shared/data)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.grading import grade_pairs
from nemo_ext.grading.equal import Grader
from nemo_ext.grading.extract import extract_answer

DATA = Path(__file__).parents[4] / "shared" / "data"
SETS = ("gsm8k_train", "gsm8k_test", "math500_test", "amc23_test", "aime24_test")


def _rows(name: str) -> list[dict[str, Any]]:
    path = DATA / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    return [json.loads(line) for line in path.read_text().splitlines()]


def _answers(name: str) -> list[str]:
    answers = [str(row["answer"]) for row in _rows(name)]
    found = [extract_answer(answer, "hash") or answer for answer in answers]
    return list(dict.fromkeys(found))


def _after_last_marker(text: str) -> str | None:
    return text.rsplit("A:", 1)[1].strip() if "A:" in text else None


def test_agrees_with_the_labels_of_gsm8k_model_solutions() -> None:
    pairs, labels = [], []
    for row in _rows("gsm8k_model_solutions"):
        expected = _after_last_marker(row["ground_truth"])
        assert expected is not None
        for solution in (value for value in row.values() if isinstance(value, dict)):
            pairs.append((_after_last_marker(solution["solution"]), expected))
            labels.append(solution["is_correct"])
    assert len(pairs) == 5276
    assert [verdict.equal for verdict in grade_pairs(pairs)] == labels


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("grader", ["default", "hendrycks", "integer"])
def test_every_answer_equals_itself(name: str, grader: str) -> None:
    answers = _answers(name)
    assert answers
    verdicts = grade_pairs([(answer, answer) for answer in answers], grader)
    assert [answer for answer, verdict in zip(answers, verdicts, strict=True) if not verdict] == []


def test_every_benchmark_answer_equals_itself_through_math_verify_where_that_can_read_it() -> None:
    answers = [answer for answer in _answers("math500_test") if not answer.lstrip("-").isdigit()][::4]
    verdicts = grade_pairs([(answer, answer) for answer in answers], "math_verify")
    assert [answer for answer, verdict in zip(answers, verdicts, strict=True) if not verdict] == []


@pytest.mark.parametrize("name", ["math500_test", "amc23_test", "aime24_test"])
def test_benchmark_answers_equal_themselves_in_other_dress_and_not_their_neighbours(name: str) -> None:
    answers = _answers(name)
    dressed = [("$" + answer.replace("\\frac", "\\dfrac") + "$.", answer) for answer in answers]
    neighbours = list(zip(answers[1:], answers[:-1], strict=True))
    with Grader(processes=2) as grader:
        assert [pair for pair, verdict in zip(dressed, grader.grade(dressed), strict=True) if not verdict] == []
        alike = [pair for pair, verdict in zip(neighbours, grader.grade(neighbours), strict=True) if verdict]
    assert alike in ([], [("x=5", "5")], [("5", "x=5")])


def test_most_pairs_of_real_answers_need_no_computer_algebra(record_property: Callable[[str, object], None]) -> None:
    from nemo_ext.grading.equality.rules import fast_verdict

    answers = _answers("math500_test")
    pairs = [(left, right) for left in answers[::3] for right in answers[::5]]
    left_open = sum(fast_verdict(*pair) is None for pair in pairs)
    record_property("left_open", left_open / len(pairs))
    assert left_open < len(pairs) / 50
