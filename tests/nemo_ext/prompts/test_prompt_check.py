"""What is wrong with a prompt is said before anything is submitted; LaTeX braces stay text."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.prompts.placeholders import Key, pieces, unbalanced
from nemo_ext.prompts.prompt import Prompt, check_prompt, render, required_keys

SHOTS = [{"problem": "1+1", "solution": "2"}, {"problem": "2+2", "solution": "4"}]
GOOD = Prompt(
    name="math_base+my_set",
    template="base",
    user="Do.\n{examples}Q: {problem} of {level}\nA:",
    example="Q: {problem}\nA: {solution}",
    few_shot=SHOTS,
    stop=["\n\n"],
)


def test_a_good_prompt_and_the_keys_it_needs() -> None:
    check_prompt(GOOD)
    assert required_keys(GOOD) == {"problem", "level"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template": "bass"}, "'bass'; it must be 'base' or 'chat'"),
        ({"system": "Be kind."}, "template=base has no system turn, but system='Be kind.'"),
        ({"user": "Write a problem. {examples}"}, r"`user` holds no value of the row"),
        ({"stop": ["\n", ""]}, "a stop string must not be empty"),
        ({"few_shot": []}, r"`user` has \{examples\}, but few_shot is empty.*\$\{prompt:math_base,"),
        ({"user": "{problem}"}, r"few_shot has 2 examples, but `user` has no \{examples\}"),
        ({"few_shot": [SHOTS[0], {"problem": "3"}]}, "example 2 of conf/few_shot/my_set.yaml has no 'solution'"),
        ({"few_shot": [{"problem": "3", "solution": ""}]}, "example 1 .* has no 'solution'"),
        ({"few_shot": [SHOTS[0] | {"hint": "x"}]}, "has 'hint', which `example` does not show; it shows .*problem"),
        ({"example": "Q: {question}\nA: {solution}"}, r"has no 'question', .*it has \['problem', 'solution'\]"),
        ({"example": ""}, "has 'problem', which `example` does not show"),
        ({"user": "{examples}{problem} {Problem}"}, r"`user` has \{Problem\}, which would stay as it is"),
        ({"user": "{examples}{problem} { problem }"}, r"`user` has \{ problem \}"),
        ({"user": "{examples}{problem} {problem:s}"}, r"\{problem:s\}"),
        ({"user": "{examples}{problem} {row.text}"}, r"\{row.text\}"),
        ({"user": "{examples}{problem} {problem1}"}, r"If it is meant as text, write \{\{problem1\}\}"),
        (
            {"user": "One.\n{examples}Q: {problem\nA:"},
            r"a brace without a partner in 'One.|'\{examples\}Q: \{problem'",
        ),
        ({"example": "Q: problem}\nA: {solution}"}, r"`example` has a brace without a partner in 'Q: problem\}'"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        check_prompt(replace(GOOD, **change))
    assert str(raised.value).startswith(f"prompt {GOOD.name}: ")


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        (r"Put {problem} into \boxed{answer}.", r"Put 7 into \boxed{answer}."),
        (r"\frac{a}{b_c} \text{if so} x_{n}^{m} {problem}", r"\frac{a}{b_c} \text{if so} x_{n}^{m} 7"),
        (r"\frac{\sqrt{a}}{b} \sqrt[n]{x} {problem}", r"\frac{\sqrt{a}}{b} \sqrt[n]{x} 7"),
        (r"\boxed{{problem}} \frac{{problem}}{n}", r"\boxed{7} \frac{7}{n}"),
        (r"\{a\} \{{problem}\} {problem}\\{problem}", r"\{a\} \{7\} 7\\7"),
        (r"Reply {{answer}} or {{No.1}} {problem}", r"Reply {answer} or {No.1} 7"),
        (r"{N} {1, 2} {} {a, b} {problem}", r"{N} {1, 2} {} {a, b} 7"),
        ("{problem}{problem}", "77"),
        (r"a\n{problem}", r"a\n7"),
    ],
)
def test_latex_braces_are_text(text: str, rendered: str) -> None:
    prompt = Prompt(name="p", template="base", user=text)
    check_prompt(prompt)
    assert required_keys(prompt) == {"problem"}
    assert render(prompt, {"problem": "7"}) == rendered


@given(st.text(alphabet=r"\{}ab_^[]1 ", max_size=30))
def test_any_text_is_cut_without_loss(text: str) -> None:
    """Only doubled braces are written shorter."""
    joined = "".join(f"{{{piece.name}}}" if isinstance(piece, Key) else piece for piece in pieces(text))
    assert joined == text or "{{" in text
    assert unbalanced(text) is None or unbalanced(text) in text


def test_a_value_with_braces_is_not_looked_at() -> None:
    prompt = Prompt(name="p", template="base", user="{problem}")
    for value in (r"\boxed{x}", "{problem}", "{{a}}", "{"):
        assert render(prompt, {"problem": value}) == value
