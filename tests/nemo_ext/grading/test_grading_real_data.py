"""OpenAI's own labels of 5,276 model solutions to GSM8K (../shared/data)."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_ext.grading.equal import Grader

DATA = Path(__file__).parents[4] / "shared" / "data"


def _after_last_marker(text: str) -> str | None:
    return text.rsplit("A:", 1)[1].strip() if "A:" in text else None


def test_agrees_with_the_labels_of_gsm8k_model_solutions(record_property: Callable[[str, object], None]) -> None:
    path = DATA / "gsm8k_model_solutions.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    pairs, labels = [], []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        expected = _after_last_marker(row["ground_truth"])
        assert expected is not None
        for solution in (value for value in row.values() if isinstance(value, dict)):
            pairs.append((_after_last_marker(solution["solution"]), expected))
            labels.append(solution["is_correct"])
    start = time.perf_counter()
    with Grader() as grader:
        verdicts = [bool(verdict) for verdict in grader.grade(pairs)]
    record_property("pairs_per_s", len(pairs) / (time.perf_counter() - start))
    assert len(pairs) == 5276
    assert verdicts == labels


@pytest.mark.parametrize("name", ["math500_test", "amc23_test", "aime24_test"])
def test_benchmark_answers_equal_themselves_in_other_dress_and_not_their_neighbours(name: str) -> None:
    path = DATA / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    answers = list(dict.fromkeys(str(json.loads(line)["answer"]) for line in path.read_text().splitlines()))
    dressed = [("$" + answer.replace("\\frac", "\\dfrac") + "$.", answer) for answer in answers]
    neighbours = list(zip(answers[1:], answers[:-1], strict=True))
    with Grader(processes=2) as grader:
        assert [pair for pair, verdict in zip(dressed, grader.grade(dressed), strict=True) if not verdict] == []
        alike = [pair for pair, verdict in zip(neighbours, grader.grade(neighbours), strict=True) if verdict]
    assert alike in ([], [("x=5", "5")], [("5", "x=5")])
