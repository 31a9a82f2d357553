from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from launchers import resolvers
from nemo_ext.prompts import Prompt, prompt_hash, render

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


@pytest.mark.parametrize("path", sorted((resolvers.CONF / "prompt").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_prompts_render(path: Path) -> None:
    prompt = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Prompt), OmegaConf.load(path)))
    assert isinstance(prompt, Prompt) and prompt.name == path.stem
    text = str(render(prompt, {"problem": "How many?", "other_problem": "How much?"}))
    assert "How many?" in text


def test_solving_stops_where_the_next_example_would_start() -> None:
    prompt = OmegaConf.to_object(
        OmegaConf.merge(OmegaConf.structured(Prompt), resolvers.prompt("math_base", "math_text_detailed"))
    )
    assert isinstance(prompt, Prompt)
    assert prompt.stop == [prompt.separator] == ["\n" * 6]
    assert str(render(prompt, {"problem": "Last one."})).endswith("Problem:\nLast one.\n\nSolution:\n")
    assert len(prompt.few_shot) >= 4
