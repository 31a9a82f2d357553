"""Replies of reward models."""

import pytest

from nemo_ext.aggregation.rewards import NEMOTRON_4, attributes, reward

STEERLM = "helpfulness:1.617,correctness:2.0,coherence:3.5,complexity:0.5,verbosity:1"


@pytest.mark.parametrize(
    ("reply", "value"),
    [("reward:-3.6", -3.6), (" reward: 12 ", 12.0), ("[-3.6]", -3.6), ("[]", None), ("", None), ("It is good.", None),
     ("reward:nan", None), ("[null]", None), ('{"reward": 1}', None), ("reward:", None)],
)  # fmt: skip
def test_one_attribute_needs_no_weights(reply: str, value: float | None) -> None:
    assert reward(reply, {}) == value


def test_several_are_added_up() -> None:
    assert attributes(STEERLM) == {
        "helpfulness": 1.617, "correctness": 2.0, "coherence": 3.5, "complexity": 0.5, "verbosity": 1.0
    }  # fmt: skip
    expected = 0.3 * 1.617 + 0.74 * 2 + 0.46 * 3.5 + 0.47 * 0.5 - 0.33
    assert reward(STEERLM, NEMOTRON_4) == pytest.approx(expected)
    assert reward(STEERLM.replace(",", "\n"), NEMOTRON_4) == pytest.approx(expected)
    assert reward("[1.0, 5.0]", {"1": 2.0}) == 10.0


def test_weights_that_do_not_fit_are_an_error_that_names_the_attributes() -> None:
    with pytest.raises(ValueError, match=r"scores helpfulness, .*verbosity; .* there are several, and no weights"):
        reward(STEERLM, {})
    with pytest.raises(ValueError, match="it has no humor"):
        reward(STEERLM, {"humor": 1.0})
