import json
from pathlib import Path

import pytest

from nemo_ext.curation.contamination.retrieve import Retriever
from nemo_ext.curation.contamination.same_problem import either_order, rule_judge

DATA = Path(__file__).parents[4] / "shared" / "data"
APPLES = "Ava has 12 apples. She buys 3 boxes of 4 apples each. How many apples does she have now?"


@pytest.mark.parametrize(
    ("problem", "same"),
    [
        (APPLES, True),
        (APPLES.upper(), True),
        ("Ben has 12 apples. He buys 3 boxes of 4 apples each. How many apples does he have now?", True),
        ("Ben buys 3 boxes of 4 pears each. Before that he had 12 pears. How many pears does Ben have?", True),
        ("Ava has twelve apples and buys three boxes, each of four apples. How many apples are there now?", True),
        ("Ava has 12 apples. She buys 3 boxes of 5 apples each. How many apples does she have now?", False),
        ("Ava has 12 apples. How many apples does she have now?", False),
        ("A rope of 12 metres is cut into 3 parts of 4 metres. What does each cost if the rope cost nothing?", False),
    ],
)
def test_rule_judge(problem: str, same: bool) -> None:
    assert rule_judge(problem, APPLES) is same
    assert rule_judge(APPLES, problem) is same


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Compute $2 + 3$.", "Find $2+3$.", False),
        ("Compute $12 + 3$.", "Compute $12 * 3$.", False),
        ("Compute $12 - 3$.", "Compute $12 + 3$.", False),
        ("Find $\\sin 30$ in degrees.", "Find $\\cos 30$ in degrees.", False),
        ("How many primes are there below 100?", "How many squares are there below 100?", False),
        ("What is the capital of the largest state?", "What is the capital of the smallest state?", False),
        ("What is the capital of the largest state?", "Of the largest state, what is the capital?", True),
        ("", "", True),
        ("", "Find 3.", False),
    ],
)
def test_rule_judge_needs_more_than_numbers(first: str, second: str, same: bool) -> None:
    assert rule_judge(first, second) is same
    assert rule_judge(second, first) is same


@pytest.mark.parametrize(
    ("replies", "verdict"),
    [
        (["True", "False"], True),
        (["False", "True."], True),
        (["no", "true"], True),
        (["Yes, both ask for the same sum.", "unsure"], True),
        (["**True**", ""], True),
        (["False", "False."], False),
        (["no", "They are not the same, so: False"], False),
        (["False", "unsure"], None),
        (["", ""], None),
        (["It is not true.", "False"], None),
    ],
)
def test_one_true_in_either_order_is_enough(replies: list[str], verdict: bool | None) -> None:
    assert either_order(replies) is verdict
    assert either_order(replies[::-1]) is verdict


def test_finds_renamed_test_problems_and_no_training_problem() -> None:
    """GSM8K: each of 200 test problems with new names and numbers kept is found; no training problem is taken for one."""
    if not (DATA / "gsm8k_test.jsonl").exists():
        pytest.skip(f"{DATA} is missing")
    test, train = (
        [json.loads(line)["question"] for line in (DATA / f"gsm8k_{split}.jsonl").read_text().splitlines()]
        for split in ("test", "train")
    )
    retriever = Retriever([test])
    renamed = [_rename(problem) for problem in test[:200]]

    def found(queries: list[str]) -> list[bool]:
        hits = retriever.top_k(queries, k=5).indices
        return [any(rule_judge(query, test[i]) for i in row) for query, row in zip(queries, hits, strict=True)]

    assert sum(found(renamed)) >= 190
    assert sum(found(train[:2000])) == 0


def _rename(problem: str) -> str:
    sentences = problem.split(". ")
    words = ". ".join([*sentences[1:-1], sentences[0], *sentences[-1:]] if len(sentences) > 2 else sentences).split()
    return " ".join("Zoe" if word[:1].isupper() and word.isalpha() and len(word) > 3 else word for word in words)
