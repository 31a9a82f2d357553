from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.aggregation.vote import vote
from nemo_ext.grading.equal import Grader


@pytest.mark.parametrize(
    ("answers", "mode", "expected"),
    [
        (["1", "2", "2"], "exact", ("2", 2, 3)),
        (["1", "2", "2", "1"], "exact", ("1", 2, 4)),
        (["2", "1", "2", "1"], "exact", ("2", 2, 4)),
        ([None, None, "3"], "exact", ("3", 1, 3)),
        ([None, None], "exact", (None, 0, 2)),
        ([], "exact", (None, 0, 0)),
        (["0.5", "1/2", "3", "3"], "exact", ("3", 2, 4)),
        (["0.5", "1/2", "1/2", "3", "3"], "equivalent", ("1/2", 3, 5)),
        # as many votes: the spelling that most have, then the shorter one, then by the alphabet
        (["0.5", "1/2", "3", "3"], "equivalent", ("3", 2, 4)),
        (["0.5", "1/2", "3", "3.0"], "equivalent", ("3", 2, 4)),
        (["7", "5"], "equivalent", ("5", 1, 2)),
        ([None, "16", "016", "5", "500"], "equivalent", ("16", 2, 5)),
        ([None], "equivalent", (None, 0, 1)),
    ],
)
def test_vote(answers: list[str | None], mode: str, expected: tuple[str | None, int, int]) -> None:
    found = vote(answers, mode)
    assert (found.answer, found.votes, found.total) == expected
    assert found.share == (found.votes / found.total if found.total else 0)


def test_a_grader_can_be_the_judge_of_equivalence() -> None:
    with Grader() as grader:
        found = vote(["x+1", "7", "1+x", r"\log 1000", "3"], "equivalent", grader.verdict)
        assert (found.answer, found.votes, found.spellings) == ("3", 2, {"3", r"\log 1000"})


@pytest.mark.parametrize(
    ("answers", "answer", "votes"),
    [
        (["2:3:5", "2:5:3", "2:5:3", "2:7:9", "2:9:11"], "2:5:3", 2),
        (["4:10:6", "2:5:3", "2:5:3", "2:7:9", "2:9:11"], "2:5:3", 3),
        ([r"x \equiv 1 \pmod 4", r"x \equiv 3 \pmod 4", r"x \equiv 3 \pmod 4"], r"x \equiv 3 \pmod 4", 2),
        # a bare 3 may be 3 cm or 3 km, but these two are not one answer
        (["3", "3", "3 cm", "3 km", "3 km"], "3", 4),
        (["3", "3 cm", "3 cm", "3 km"], "3 cm", 3),
        (["10%", "10%", "10", "0.1"], "10%", 3),
    ],
)
def test_different_answers_are_not_counted_together(answers: list[str], answer: str, votes: int) -> None:
    for order in permutations(answers):
        found = vote(order, "equivalent")
        assert (found.answer, found.votes) == (answer, votes)


def test_weights_decide_and_are_the_share() -> None:
    found = vote(["1", "2", "2", None], weights=[3.0, 1.0, 1.5, 0.5])
    assert (found.answer, found.votes, found.total, found.share) == ("1", 1, 4, 0.5)
    both = vote(["0.5", "3", "1/2"], "equivalent", weights=[0.1, 0.25, 0.2])
    assert (both.answer, both.votes) == ("1/2", 2)
    assert both.share == pytest.approx(0.3 / 0.55)
    assert vote(["1"], weights=[0.0]).share == 0


@pytest.mark.parametrize("weights", [[1.0], [1.0, float("nan")], [1.0, float("inf")], [1.0, -1.0]])
def test_bad_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must be finite"):
        vote(["1", "2"], weights=weights)


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
    assert vote(shuffled, "equivalent") == found
    assert found.answer is None or found.answer in given_answers


@given(st.lists(st.tuples(st.sampled_from(["1", "1.0", "2", None]), st.floats(0, 9)), max_size=8), st.randoms())
def test_weighted_votes_do_not_depend_on_order(given_votes, random) -> None:
    def result(votes):
        return vote([answer for answer, _ in votes], "equivalent", weights=[weight for _, weight in votes])

    shuffled = list(given_votes)
    random.shuffle(shuffled)
    assert result(shuffled) == result(given_votes)


def test_classes_do_not_chain() -> None:
    """a = b and b = c do not make a = c where equality is not transitive: each spelling joins one representative."""
    close = {("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")}
    found = vote(["b", "b", "a", "c"], "equivalent", lambda left, right: (left, right) in close)
    assert found.spellings == {"a", "b", "c"} and found.votes == 4
    found = vote(["a", "a", "b", "c"], "equivalent", lambda left, right: (left, right) in close)
    assert found.spellings == {"a", "b"} and found.votes == 3
