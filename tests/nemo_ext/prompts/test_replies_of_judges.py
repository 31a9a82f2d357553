"""Judges' replies: what they say clearly is read, anything else is None."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.prompts.replies.score import parse as parse_score
from nemo_ext.prompts.replies.verdict import parse as parse_verdict


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("True", True),
        ("true.", True),
        ("**True**", True),
        (" FALSE\n", False),
        ("`no`", False),
        ("Yes, they are the same.", True),
        ("No. The second has another root.", False),
        ("False, because 0.33 is rounded.", False),
        ("Judgement: Yes", True),
        ("Judgment: **No**.", False),
        ("The answer is: True", True),
        ("Both are 1/2.\n\nVerdict: True", True),
        ("It looks false at first.\nVerdict: true", True),
        ("They agree after simplifying.\nTrue", True),
        ("One is rounded, so the statement is false.", False),
        ("I would say that this is true, both are 7.", True),
        ("No two roots agree.\nFalse.", False),
        ("", None),
        ("Maybe", None),
        ("True or False", None),
        ("True. False.", None),
        ("Both true and false readings are possible.", None),
        ("It is not true that they agree.", None),
        ("That isn't true.", None),
        ("No, that is not true.", False),
        ("True: it is not false.", True),
        ("Verdict: not true", None),
        ("No two problems are ever the same.", None),
        ("There is no difference between them.", None),
        ("Nothing", None),
        ("untrue", None),
        ("Yes and no", None),
        ("Answer: 42", None),
    ],
)
def test_verdicts(reply: str, verdict: bool | None) -> None:
    assert parse_verdict(reply) is verdict


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("3", 3),
        ("Score: 3", 3),
        ("**Score:** 4.", 4),
        ("score = 0", 0),
        ("The last step is unclear.\nScore: 3/4", 3),
        ("It deserves a grade of 2.", 2),
        ("I would give it 3 out of 4.", 3),
        ("3/4", 3),
        ("Correct in every step.\n4", 4),
        ("Score: 1 for the start, but checking again\nScore: 2", 2),
        ("Score: 2.5", 2.5),
        ("", None),
        ("Score: good", None),
        ("Score: 5", None),
        ("Score: -1", None),
        ("Score: 7/10", None),
        ("7/10", None),
        ("3/4 for the idea and 1/4 for the rest", None),
        ("The answer 12 is right.", None),
        ("10", None),
    ],
)
def test_scores(reply: str, score: float | None) -> None:
    assert parse_score(reply, high=4) == score


def test_another_scale() -> None:
    assert parse_score("Rating: 7/10", high=10) == 7
    assert parse_score("0", low=1, high=5) is None


@given(st.text())
def test_any_reply_can_be_read(reply: str) -> None:
    assert parse_verdict(reply) in {True, False, None}
    score = parse_score(reply, high=4)
    assert score is None or 0 <= score <= 4
