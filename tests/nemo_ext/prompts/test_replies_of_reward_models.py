"""Replies of reward models."""

import pytest

from nemo_ext.prompts.replies.reward import NEMOTRON_4, attributes, parse

STEERLM = "helpfulness:1.617,correctness:2.0,coherence:3.5,complexity:0.5,verbosity:1"


@pytest.mark.parametrize(
    ("reply", "value"),
    [("reward:-3.6", -3.6), (" reward: 12 ", 12.0), ("[-3.6]", -3.6), ("[]", None), ("", None), ("It is good.", None),
     ("reward:nan", None), ("[null]", None), ('{"reward": 1}', None), ("reward:", None)],
)  # fmt: skip
def test_one_attribute_needs_no_weights(reply: str, value: float | None) -> None:
    assert parse(reply) == value


def test_several_are_added_up() -> None:
    assert attributes(STEERLM) == {
        "helpfulness": 1.617, "correctness": 2.0, "coherence": 3.5, "complexity": 0.5, "verbosity": 1.0
    }  # fmt: skip
    expected = 0.3 * 1.617 + 0.74 * 2 + 0.46 * 3.5 + 0.47 * 0.5 - 0.33
    assert parse(STEERLM, weights=NEMOTRON_4) == pytest.approx(expected)
    assert parse(STEERLM.replace(",", "\n"), weights=NEMOTRON_4) == pytest.approx(expected)
    assert parse("[1.0, 5.0]", weights={"1": 2.0}) == 10.0


def test_weights_that_do_not_fit_are_an_error_that_names_the_attributes() -> None:
    with pytest.raises(ValueError, match=r"scores helpfulness, .*verbosity; .* there are several, and no weights"):
        parse(STEERLM)
    with pytest.raises(ValueError, match="it has no humor"):
        parse(STEERLM, weights={"humor": 1.0})
