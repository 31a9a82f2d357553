from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.grading.equal import Grader
from nemo_ext.grading.vote import Vote, vote


@pytest.mark.parametrize(
    ("answers", "mode", "expected"),
    [
        (["1", "2", "2"], "exact", Vote("2", 2, 3)),
        (["1", "2", "2", "1"], "exact", Vote("1", 2, 4)),
        (["2", "1", "2", "1"], "exact", Vote("2", 2, 4)),
        ([None, None, "3"], "exact", Vote("3", 1, 3)),
        ([None, None], "exact", Vote(None, 0, 2)),
        ([], "exact", Vote(None, 0, 0)),
        (["0.5", "1/2", "3", "3"], "exact", Vote("3", 2, 4)),
        (["0.5", "1/2", "1/2", "3", "3"], "equivalent", Vote("1/2", 3, 5)),
        (["0.5", "1/2", "3", "3"], "equivalent", Vote("0.5", 2, 4)),
        (["3", "0.5", "1/2", "3"], "equivalent", Vote("3", 2, 4)),
        ([None, "16", "016", "5", "500"], "equivalent", Vote("16", 2, 5)),
        ([None], "equivalent", Vote(None, 0, 1)),
    ],
)
def test_vote(answers: list[str | None], mode: str, expected: Vote) -> None:
    assert vote(answers, mode) == expected


def test_a_grader_can_be_the_judge_of_equivalence() -> None:
    with Grader() as grader:
        assert vote(["x+1", "7", "1+x"], "equivalent", grader.verdict) == Vote("x+1", 2, 3)


def test_unknown_mode() -> None:
    with pytest.raises(ValueError, match="exact, equivalent"):
        vote(["1"], "fuzzy")


answers = st.lists(st.none() | st.sampled_from(["1", "1.0", "01", "2", "2.0", "1/2", "0.5"]), max_size=12)


@given(answers)
def test_exact_is_a_counter(given_answers: list[str | None]) -> None:
    found = vote(given_answers, "exact")
    counts = Counter(answer for answer in given_answers if answer is not None)
    assert found.total == len(given_answers)
    assert found.votes == max(counts.values(), default=0)
    assert found.answer == next((a for a in given_answers if a is not None and counts[a] == found.votes), None)


@given(answers, st.randoms(use_true_random=False))
def test_equivalent_votes_do_not_depend_on_order_and_are_never_fewer(given_answers, random) -> None:
    found = vote(given_answers, "equivalent")
    assert found.votes >= vote(given_answers, "exact").votes
    shuffled = list(given_answers)
    random.shuffle(shuffled)
    assert vote(shuffled, "equivalent").votes == found.votes
    assert found.answer is None or found.answer in given_answers
