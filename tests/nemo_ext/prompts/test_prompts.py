from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.prompts.prompt import Prompt, prompt_hash, render

BASE = Prompt(
    name="p",
    template="base",
    user="Do.\n{examples}Q: {problem}\nA:",
    example="Q: {problem}\nA: {solution}",
    separator="\n--\n",
)
SHOTS = [{"problem": "1+1", "solution": "2"}, {"problem": "2+2", "solution": "4"}]


def test_base_prompt_with_examples() -> None:
    assert render(replace(BASE, few_shot=SHOTS), {"problem": "3+3"}) == (
        "Do.\nQ: 1+1\nA: 2\n--\nQ: 2+2\nA: 4\n--\nQ: 3+3\nA:"
    )
    assert render(BASE, {"problem": "3+3"}) == "Do.\nQ: 3+3\nA:"


def test_chat_prompt() -> None:
    chat = replace(BASE, template="chat", system=None)
    assert render(chat, {"problem": "x"}) == [{"role": "user", "content": "Do.\nQ: x\nA:"}]
    # an empty system turn is a turn: the chat template renders it
    assert render(replace(chat, system=""), {"problem": "x"})[0] == {"role": "system", "content": ""}


@given(st.text())
def test_values_are_put_in_once(problem: str) -> None:
    assert render(BASE, {"problem": problem, "examples": "no"}) == f"Do.\nQ: {problem}\nA:"


def test_text_that_looks_like_a_placeholder_is_kept() -> None:
    assert render(BASE, {"problem": "{examples} {problem}"}) == "Do.\nQ: {examples} {problem}\nA:"
    assert (
        render(replace(BASE, user=r"\boxed{} {N} \frac{1}{2} {problem}"), {"problem": "x"})
        == r"\boxed{} {N} \frac{1}{2} x"
    )


@pytest.mark.parametrize("row", [{}, {"problem": None}])
def test_a_missing_value_is_named(row: dict) -> None:
    with pytest.raises(ValueError, match=r"prompt p needs \{problem\}"):
        render(BASE, row)


def test_an_unknown_template_is_named() -> None:
    with pytest.raises(ValueError, match="'bass'; it must be 'base' or 'chat'"):
        render(replace(BASE, template="bass"), {"problem": "x"})


@pytest.mark.parametrize(
    "change", [{"system": "x"}, {"user": "x"}, {"separator": "x"}, {"few_shot": SHOTS}, {"stop": ["x"]}]
)
def test_the_hash_sees_every_field(change: dict) -> None:
    assert prompt_hash(replace(BASE, **change)) != prompt_hash(BASE) == prompt_hash(Prompt(**asdict(BASE)))
