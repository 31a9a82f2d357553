"""Scores out of rows, checked against values worked out by hand and formulas of another form."""

from typing import Any

import pytest

from nemo_ext.evaluation.metrics import agreement, benchmark_scores, scores
from nemo_ext.evaluation.problems import answer_classes, count_problems, majorities, majority_sizes, powers_of_two
from nemo_ext.evaluation.stats import bootstrap, wilson


def _row(benchmark: str, problem: int, answer: str | None, correct: bool, finish: str = "stop", **more: Any) -> dict:
    return {
        "benchmark": benchmark, "id": str(problem), "predicted_answer": answer, "is_correct": correct,
        "finish_reason": finish, **more,
    }  # fmt: skip


def _sampled(problem: int, answers: list[str | None], right: set[str], **more: Any) -> list[dict]:
    return [_row("toy", problem, each, each in right, **more) for each in answers]


def test_counts_and_rates_per_benchmark() -> None:
    rows = [
        _row("toy", 1, "1", True),
        _row("toy", 2, "2", False),
        _row("toy", 3, None, False, "length"),
        _row("toy", 4, "4", True),
        _row("amc", 1, "3", True),
    ]
    found = scores(count_problems(rows))
    assert list(found) == ["toy", "amc"]
    toy = found["toy"]
    assert (toy["problems"], toy["samples"], toy["total"], toy["correct"]) == (4, 4, 4, 2)
    assert (toy["no_answer"], toy["truncated"], toy["no_answer_rate"], toy["truncation_rate"]) == (1, 1, 0.25, 0.25)
    assert (toy["accuracy"], toy["low"], toy["high"]) == (0.5, *wilson(2, 4))
    assert toy["metrics"] == {"pass@1": {"value": 0.5, "low": toy["low"], "high": toy["high"]}}
    assert "seeds" not in toy and "verdicts" not in toy and toy["by"] == {}
    assert scores(count_problems([])) == {}


def test_of_several_samples() -> None:
    rows = [
        *_sampled(1, ["7", "3", "7", "3"], {"7"}),  # a tie: the answer given first
        *_sampled(2, ["1", "1", "5", None], {"5"}),
        *_sampled(3, [None] * 4, set()),
    ]
    found = benchmark_scores(list(count_problems(rows)))
    values = {name: metric["value"] for name, metric in found["metrics"].items()}
    assert list(values) == ["pass@1", "pass@2", "pass@4", "majority@4"]
    assert values["majority@4"] == pytest.approx(1 / 3)
    assert values["pass@4"] == pytest.approx(2 / 3)
    assert values["pass@2"] == pytest.approx((5 / 6 + 1 / 2) / 3)  # 1 - C(2,2)/C(4,2) and 1 - C(3,2)/C(4,2)
    assert values["pass@1"] == found["accuracy"] == pytest.approx((0.5 + 0.25) / 3)
    assert (found["problems"], found["samples"], found["total"], found["correct"]) == (3, 12, 12, 3)
    assert (found["low"], found["high"]) == bootstrap([0.5, 0.25, 0.0])
    assert found["seeds"]["values"] == pytest.approx([1 / 3, 0, 2 / 3, 0])
    assert found["seeds"]["mean"] == pytest.approx(found["accuracy"])
    assert found["seeds"]["std"] == pytest.approx(0.3191, abs=1e-4)


def test_a_benchmark_that_is_all_wrong_has_an_interval_all_the_same() -> None:
    """A bootstrap of 30 zeros would claim to be certain."""
    rows = [row for problem in range(30) for row in _sampled(problem, ["1", "2"], set())]
    found = benchmark_scores(list(count_problems(rows)))
    assert (found["low"], found["high"]) == wilson(0, 30) and found["high"] > 0.1


def test_answers_vote_together_however_they_are_written() -> None:
    assert answer_classes(["1/2", "0.5", "2", None, r"\frac{1}{2}", "2.0", "x"]) == [0, 0, 1, None, 0, 1, 2]
    answers = ["3", "3", "1/2", "0.5", r"\frac12", "3", "4", "5"]
    correct = [each in ("1/2", "0.5", r"\frac12") for each in answers]
    assert majorities(answers, correct, [8, 4, 2]) == {8: 0.0, 4: 0.5, 2: 0.5}
    assert majorities(answers[1:5], correct[1:5], [4]) == {4: 1.0}, "three spellings of a half against one 3"
    assert majorities([None, None], [False, False], [2]) == {2: 0.0}


def test_majority_uses_every_whole_block() -> None:
    """10 samples are two blocks of 4; the last two are in none. A later block does not break an earlier one's tie."""
    answers = ["1", "2", "1", "2", "2", "2", "1", "1", "2", "2"]
    assert majorities(answers, [each == "1" for each in answers], [4]) == {4: 0.5}
    assert majorities(answers, [each == "2" for each in answers], [4]) == {4: 0.5}


def test_which_k() -> None:
    assert powers_of_two(1) == [1] and powers_of_two(6) == [1, 2, 4, 6] and powers_of_two(256)[-1] == 256
    assert [majority_sizes(n) for n in (1, 2, 3, 4, 50)] == [[], [2], [3], [4], [4, 8, 16, 32, 50]]


def test_problems_with_fewer_samples_limit_k() -> None:
    rows = [*_sampled(1, ["7"] * 8, {"7"}), *_sampled(2, ["1"] * 5, {"7"})]
    found = benchmark_scores(list(count_problems(rows)))
    assert list(found["metrics"]) == ["pass@1", "pass@2", "pass@4", "pass@5", "majority@4"]
    assert found["accuracy"] == 0.5, "each problem counts once"
    assert (found["total"], found["correct"], len(found["seeds"]["values"])) == (13, 8, 5)


def test_per_level_subject_and_source() -> None:
    rows = [_row("toy", i, "1", i % 3 == 0, level=i % 10 + 1, subject="Algebra", source=["a", "b"]) for i in range(20)]
    by = benchmark_scores(list(count_problems(rows)))["by"]
    assert list(by["level"]) == [str(i) for i in range(1, 11)], "10 comes after 9"
    assert by["level"]["1"] == {
        "problems": 2, "samples": 2, "correct": 1, "accuracy": 0.5,
        "low": wilson(1, 2)[0], "high": wilson(1, 2)[1],
    }  # fmt: skip
    assert list(by["subject"]) == ["Algebra"] and list(by["source"]) == ["a, b"]
    many = [_row("toy", i, "1", True, source=f"page {i}") for i in range(200)]
    assert "source" not in benchmark_scores(list(count_problems(many)))["by"], "a name of each problem is no kind"


def test_graders_side_by_side() -> None:
    said = [(True, True), (True, False), (True, None), (False, True), (False, False)]
    rows = [_row("toy", i, "1", a, verdicts={"symbolic": a, "judge": b}) for i, (a, b) in enumerate(said)]
    problems = list(count_problems(rows))
    assert benchmark_scores(problems)["verdicts"] == {"symbolic": 0.6, "judge": 0.4, "both": 0.2, "either": 0.8}
    (pair,) = agreement(problems)
    assert pair == {
        "first": "symbolic", "second": "judge", "samples": 5, "only_first": 2, "only_second": 1, "both": 1,
        "points": pytest.approx(20),
    }  # fmt: skip


def test_no_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one problem"):
        benchmark_scores([])
