import pytest

from nemo_ext.evaluation.metrics import metrics, sampled_metrics


def _row(benchmark: str, problem: int, answer: str | None, correct: bool, finish: str = "stop") -> dict:
    return {
        "benchmark": benchmark,
        "id": problem,
        "predicted_answer": answer,
        "is_correct": correct,
        "finish_reason": finish,
    }


def test_counts_and_rates_per_benchmark() -> None:
    rows = [
        _row("toy", 1, "1", True),
        _row("toy", 2, "2", False),
        _row("amc", 1, "3", True),
        _row("toy", 3, None, False, "length"),
        _row("toy", 4, "4", True),
    ]
    found = metrics(rows)
    assert list(found) == ["toy", "amc"]
    toy = found["toy"]
    assert (toy["total"], toy["correct"], toy["no_answer"], toy["truncated"]) == (4, 2, 1, 1)
    assert (toy["accuracy"], toy["no_answer_rate"], toy["truncation_rate"]) == (0.5, 0.25, 0.25)
    assert toy["low"] < 0.5 < toy["high"]
    assert metrics([]) == {}


def test_majority_and_pass_at_k() -> None:
    rows = [
        *[_row("toy", 1, answer, answer == "7") for answer in ["7", "3", "7", "3"]],  # tie: first seen wins
        *[_row("toy", 2, answer, answer == "5") for answer in ["1", "1", "5", None]],
        *[_row("toy", 3, None, False) for _ in range(4)],
    ]
    found = sampled_metrics(rows, k=4)["toy"]
    assert found["problems"] == 3
    assert found["majority@4"] == pytest.approx(1 / 3)
    assert found["pass@4"] == pytest.approx(2 / 3)
    assert found["pass@1"] == pytest.approx((0.5 + 0.25) / 3)
    assert sampled_metrics(rows, k=1)["toy"]["majority@1"] == pytest.approx(1 / 3)


def test_too_few_samples_are_named() -> None:
    with pytest.raises(ValueError, match="toy: problem 9 has 1 samples, majority@2 needs 2"):
        sampled_metrics([_row("toy", 9, "1", True)], k=2)
