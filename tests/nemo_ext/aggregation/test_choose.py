"""Votes, rewards, and which of them wins."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.aggregation.choose import choose
from nemo_ext.aggregation.config import Choosing
from nemo_ext.grading.equal import equal

ANSWERS = ["1/2", "3", None, "0.5", "3", "\\frac{1}{2}"]
NO_REWARDS = [None] * 6
REWARDS = [0.1, 0.9, 5.0, 0.2, 0.3, None]


def test_majority_counts_spellings_of_one_value_together() -> None:
    won = choose(ANSWERS, NO_REWARDS, Choosing(), equal)
    assert (won.sample, won.votes, won.total, won.share) == (0, 3, 6, 0.5) and equal(won.answer, "0.5")
    strings = choose(ANSWERS, NO_REWARDS, Choosing(equivalent=False))
    assert (strings.answer, strings.sample, strings.votes) == ("3", 1, 2)


def test_only_the_first_k() -> None:
    assert choose(ANSWERS, NO_REWARDS, Choosing(k=2, equivalent=False)).answer == "1/2"
    with pytest.raises(ValueError, match="6 samples, and choosing.k=7"):
        choose(ANSWERS, NO_REWARDS, Choosing(k=7))


def test_best_of_n_wants_an_answer() -> None:
    """The highest reward is that of a sample that has none."""
    won = choose(ANSWERS, REWARDS, Choosing(method="best_of_n"))
    assert (won.answer, won.sample, won.votes) == ("3", 1, 2)
    assert choose(["7", "8"], [1.0, 1.0], Choosing(method="best_of_n")).sample == 0, "of equal rewards the first"


def test_weighted_adds_rewards_up() -> None:
    won = choose(["a", "b", "b"], [0.9, 0.4, 0.4], Choosing(method="weighted", equivalent=False))
    assert (won.answer, won.votes) == ("a", 1) and won.share == pytest.approx(0.9 / 1.7)
    won = choose(["a", "b", "b"], [0.7, 0.4, 0.4], Choosing(method="weighted", equivalent=False))
    assert won.answer == "b"


@pytest.mark.parametrize("kind", ["sigmoid", "exp"])
def test_negative_rewards_need_a_weight_that_is_not(kind: str) -> None:
    rewards = [-3.6, -12.0, 800.0]
    with pytest.raises(ValueError, match=r"a reward of -3\.6 cannot be a weight: set choosing\.reward_weight"):
        choose(["a", "b", "a"], rewards, Choosing(method="weighted"))
    won = choose(["a", "b", "a"], rewards, Choosing(method="weighted", reward_weight=kind, equivalent=False))
    assert won.answer == "a" and math.isfinite(won.share)


@pytest.mark.parametrize("method", ["weighted", "best_of_n"])
def test_methods_that_need_rewards_say_so(method: str) -> None:
    with pytest.raises(ValueError, match=f"method={method} needs rewards, and no sample has one"):
        choose(["a"], [None], Choosing(method=method))


def test_no_answer_at_all() -> None:
    for method in ("majority", "weighted", "best_of_n"):
        won = choose([None, None], [1.0, 2.0], Choosing(method=method))
        assert (won.answer, won.sample, won.votes, won.total) == (None, None, 0, 2)


@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=20))
def test_with_equal_rewards_weighted_is_the_majority(answers: list[str | None]) -> None:
    votes = choose(answers, [None] * len(answers), Choosing())
    assert choose(answers, [0.5] * len(answers), Choosing(method="weighted")).votes == votes.votes


@pytest.mark.parametrize("fields", [{"method": "beam"}, {"reward_weight": "tanh"}, {"k": 0}])
def test_settings_are_checked(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"choosing\."):
        Choosing(**fields)  # type: ignore[arg-type]
