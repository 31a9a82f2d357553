"""The chooser among attempts to mask a reference solution: each rule, each fallback."""

import pytest

from nemo_ext.curation.choosing.masking import (
    ANSWER_FOUND,
    EMPTY,
    HIDDEN,
    OTHER_LENGTH,
    REFERENCE,
    SAME,
    TRUNCATED,
    Attempts,
    answer_in,
)

PROBLEM = "Fay has 512 pens and buys 347 boxes of 128 pens. How many pens does Fay have now?"
SOLUTION = r"347 * 128 = 44416. 512 + 44416 = 44928. The answer is \boxed{44928}."
MASKED = r"347 * 128 = M. 512 + M = N. The answer is \boxed{N}."
HALF_MASKED = r"347 * 128 = 44416. 512 + 44416 = N. The answer is \boxed{N}."


def attempts() -> Attempts:
    return Attempts(PROBLEM, SOLUTION, "44928")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (MASKED, HIDDEN),
        (HALF_MASKED, HIDDEN),
        (SOLUTION, SAME),
        ("  \n", EMPTY),
        (r"347 * 128 = M. The answer is \boxed{44928}.", ANSWER_FOUND),
        (r"347 * 128 = M. 512 + M = N. The answer is \boxed{44,928}.", ANSWER_FOUND),
        (r"347 * 128 = M. 512 + M = 44928 = N. The answer is \boxed{N}.", ANSWER_FOUND),
        ("M + N", OTHER_LENGTH),
        (MASKED * 3, OTHER_LENGTH),
    ],
)
def test_what_an_attempt_is(text: str, kind: str) -> None:
    assert attempts().add(text) == kind


def test_a_text_that_was_cut_is_no_attempt() -> None:
    tried = attempts()
    assert tried.add(MASKED, truncated=True) == TRUNCATED and tried.chosen() == (SOLUTION, REFERENCE)


def test_the_fewest_digits_win_and_the_first_of_equals() -> None:
    tried = attempts()
    for text in (HALF_MASKED, MASKED, MASKED.replace("M", "K")):
        tried.add(text)
    assert tried.chosen() == (MASKED, HIDDEN)


def test_fallbacks_in_their_order_and_only_those_asked_for() -> None:
    tried = attempts()
    leaking = r"347 * 128 = M. 512 + M = 44928. The answer is \boxed{44928}."
    for text in (leaking.replace("M", "44416"), leaking, "M + N"):
        tried.add(text)
    assert tried.chosen() == (leaking, ANSWER_FOUND)
    assert tried.chosen([REFERENCE]) == (SOLUTION, REFERENCE)
    assert tried.chosen([]) is None


@pytest.mark.parametrize(
    ("text", "problem", "answer", "found"),
    [
        (r"x^2 = M, \boxed{N}", "Solve.", "2", False),  # an exponent is not the answer
        (r"so M = 2, \boxed{N}", "Solve.", "2", True),
        (r"2 boxes, so M, \boxed{N}", "There are 2 boxes.", "2", False),  # the problem says it anyway
        (r"M = 12 and \boxed{N}", "Solve.", "2", False),
        (r"M = 2.5 and \boxed{N}", "Solve.", "2", False),
        (r"M = \frac{1}{2} and \boxed{N}", "Solve.", r"\frac{1}{2}", True),
        (r"\boxed{0.5}", "Solve.", r"\frac{1}{2}", True),
    ],
)
def test_where_an_answer_is_found(text: str, problem: str, answer: str, found: bool) -> None:
    assert answer_in(text, problem, answer) is found
