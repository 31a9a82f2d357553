import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.curation.arithmetic.splitting import split_arithmetic
from nemo_ext.curation.arithmetic.statements import wrong_statement


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("1 + 2 + 3 + 4 = 10", "1 + 2 + 3 + 4 = 3 + 3 + 4 = 6 + 4 = 10"),
        ("So (1 + 2) * 3 = 9.", "So (1 + 2) * 3 = 3 * 3 = 9."),
        ("a: 2 * (3 + 4 * 2) = 22 apples\nb", "a: 2 * (3 + 4 * 2) = 2 * (3 + 8) = 2 * 11 = 22 apples\nb"),
        ("1+2+3=6", "1+2+3=3 + 3=6"),
        ("5 - 7 + 1 = -1", "5 - 7 + 1 = -2 + 1 = -1"),
        ("2 - (3 - 5) - 1 = 3", "2 - (3 - 5) - 1 = 2 - (-2) - 1 = 4 - 1 = 3"),
        ("1.5 * 2 + 0.25 = 3.25, and 2 + 2 + 2 = 6", "1.5 * 2 + 0.25 = 3 + 0.25 = 3.25, and 2 + 2 + 2 = 4 + 2 = 6"),
        ("8 / 4 / 2 = 1", "8 / 4 / 2 = 2 / 2 = 1"),
    ],
)
def test_one_operation_a_step(text: str, split: str) -> None:
    assert split_arithmetic(text) == split
    assert split_arithmetic(split) == split, "once is enough"


@pytest.mark.parametrize(
    "text",
    [
        "1 + 2 = 3",
        "1 + 2 + 3 = 7",
        "10 / 3 * 6 = 20",
        "x + 1 + 2 = 3",
        "1 + 2 + 3 = 6x",
        "1 + 2 + 3 = 25%",
        "2x + 1 + 2 = 3",
        "1 + 2 + 3 = x",
        "1 + 2 + 3 == 6",
        "1 + 2 + 3 <= 6",
        "half of 50 + 1 + 2 = 28",
        "2^2 + 3 + 4 = 11",
        "\\frac{1}{2} + 1 + 2 = 3.5",
        "1 / 0 + 2 = 3",
        "((((1 + 2 + 3 = 6",
        "1 + * 2 + 3 = 6",
        "1 2 + 3 = 15",
        "= = =",
        "",
        "9" * 300 + " + 1 + 1 = 2",
    ],
)
def test_leaves_the_rest_alone(text: str) -> None:
    assert split_arithmetic(text) == text


@given(st.lists(st.integers(0, 99), min_size=3, max_size=6), st.lists(st.sampled_from("+-*"), min_size=5, max_size=5))
def test_steps_are_true(numbers: list[int], operators: list[str]) -> None:
    expression = str(numbers[0]) + "".join(f" {op} {n}" for op, n in zip(operators, numbers[1:], strict=False))
    text = f"So {expression} = {eval(expression)} in all."
    split = split_arithmetic(text)
    assert split.count("=") == len(numbers) - 1
    assert wrong_statement(split, 0.0) is None
    assert split.startswith(f"So {expression} = ") and split.endswith(f" = {eval(expression)} in all.")


@given(st.text(alphabet="0123456789+-*/()=. x\n", max_size=80))
def test_only_adds(text: str) -> None:
    split = split_arithmetic(text)
    rest = iter(split)
    assert all(character in rest for character in text), "what was there is there, in its order"
