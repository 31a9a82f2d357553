"""Scores of graded rows, per benchmark.

A row: {"benchmark": "gsm8k", "id": "7", "predicted_answer": "12", "is_correct": true, "finish_reason": "stop"}
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from nemo_ext.evaluation.stats import pass_at_k, wilson
from nemo_ext.grading.vote import vote

Row = dict[str, Any]


def metrics(rows: Iterable[Row]) -> dict[str, dict[str, float | int]]:
    """Per benchmark, in order of appearance: counts, rates in 0..1, and the 95 % Wilson interval of the accuracy.

    A row without an answer counts as wrong; `no_answer` and `truncated` say how many there were.
    """
    return {name: _scores(group) for name, group in _grouped(rows, "benchmark").items()}


def _scores(rows: list[Row]) -> dict[str, float | int]:
    total = len(rows)
    correct = sum(row["is_correct"] is True for row in rows)
    no_answer = sum(row["predicted_answer"] is None for row in rows)
    truncated = sum(row.get("finish_reason") == "length" for row in rows)
    low, high = wilson(correct, total)
    return {
        "total": total,
        "correct": correct,
        "accuracy": correct / total,
        "low": low,
        "high": high,
        "no_answer": no_answer,
        "no_answer_rate": no_answer / total,
        "truncated": truncated,
        "truncation_rate": truncated / total,
    }


def sampled_metrics(rows: Iterable[Row], k: int) -> dict[str, dict[str, float | int]]:
    """Per benchmark for rows with several samples of each problem (rows that share `id`).

    majority@k: share of problems whose majority answer (exact strings, over the first k samples) is correct. pass@k
    and pass@1: unbiased, over all samples. Raises ValueError when a problem has fewer than k samples.
    """
    return {name: _sampled_scores(name, group, k) for name, group in _grouped(rows, "benchmark").items()}


def _sampled_scores(benchmark: str, rows: list[Row], k: int) -> dict[str, float | int]:
    problems = _grouped(rows, "id")
    for problem, samples in problems.items():
        if len(samples) < k:
            raise ValueError(f"{benchmark}: problem {problem} has {len(samples)} samples, majority@{k} needs {k}")
    counts = [(len(samples), sum(row["is_correct"] is True for row in samples)) for samples in problems.values()]
    total = len(problems)
    return {
        "problems": total,
        f"majority@{k}": sum(_majority_is_correct(samples[:k]) for samples in problems.values()) / total,
        f"pass@{k}": sum(pass_at_k(n, c, k) for n, c in counts) / total,
        "pass@1": sum(c / n for n, c in counts) / total,
    }


def _majority_is_correct(samples: list[Row]) -> bool:
    winner = vote([row["predicted_answer"] for row in samples], "exact").answer
    return any(row["predicted_answer"] == winner and row["is_correct"] is True for row in samples)


def _grouped(rows: Iterable[Row], key: str) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    return groups
