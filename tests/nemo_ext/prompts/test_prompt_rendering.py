"""Every shipped prompt, byte for byte as a model sees it, and the worked examples checked by calculation.

golden_prompts/<name>.txt is the text of a `base` prompt, or what llama3.jinja makes of a `chat` prompt's messages, with the
few-shot set that the prompt names. After a change on purpose: python -m tests.nemo_ext.prompts.test_prompt_rendering, and read
the diff.
"""

import re
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import combinations, product
from math import comb, gcd, isqrt, prod
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from launchers.planning import resolvers
from nemo_ext.curation.arithmetic.statements import wrong_statement
from nemo_ext.grading.extract import boxed
from nemo_ext.models.chat_template import ChatTemplate
from nemo_ext.models.model import Model, chat_template_path
from nemo_ext.prompts.prompt import Prompt, check_prompt, render, required_keys
from nemo_ext.sandbox.formats import LLM_CODE
from tests.tiny_tokenizer import make_tokenizer

GOLDEN = Path(__file__).parent / "golden_prompts"
PROMPTS = sorted(path.stem for path in (resolvers.CONF / "prompt").glob("*.yaml"))
SETS = sorted(path.stem for path in (resolvers.CONF / "few_shot").glob("*.yaml"))
BOS = "<|begin_of_text|>"
ROW = {
    "problem": "If $\\frac{1}{x} = \\{2\\}$ and {examples} is text, what is $x_{n}$?",
    "other_problem": "How much?",
    "expected_answer": "\\frac{1}{2}",
    "predicted_answer": "0.5",
    "generation": "Turn it over: $x = \\frac{1}{2}$.\n\nThe answer is $\\boxed{\\frac{1}{2}}$.",
    "solution": "Turn it over: $x = \\boxed{\\frac{1}{2}}$.",
    "masked_solution": "Turn it over: $x = \\boxed{M}$.",
}


def load(name: str) -> Prompt:
    few_shot = OmegaConf.load(resolvers.CONF / "prompt" / f"{name}.yaml").few_shot
    made = resolvers.prompt(name, few_shot if isinstance(few_shot, str) else None)
    prompt = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Prompt), made))
    assert isinstance(prompt, Prompt)
    return prompt


def llama3(folder: Path) -> ChatTemplate:
    (folder / "tokenizer_config.json").write_text(f'{{"bos_token": "{BOS}"}}')
    return ChatTemplate(folder, chat_template_path(Model(chat_template="llama3.jinja")))


def as_seen(name: str, template: ChatTemplate) -> str:
    rendered = render(load(name), ROW)
    return rendered if isinstance(rendered, str) else template.render(rendered)


def test_there_are_prompts_and_every_golden_text_has_one() -> None:
    assert len(PROMPTS) >= 11
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == PROMPTS


@pytest.mark.parametrize("name", PROMPTS)
def test_rendered_byte_for_byte(name: str, tmp_path: Path) -> None:
    assert as_seen(name, llama3(tmp_path)).encode() == (GOLDEN / f"{name}.txt").read_bytes()


@pytest.mark.parametrize("name", PROMPTS)
def test_is_sound_and_needs_only_keys_that_rows_have(name: str) -> None:
    prompt = load(name)
    check_prompt(prompt)
    assert prompt.name.partition("+")[0] == name
    assert OmegaConf.load(resolvers.CONF / "prompt" / f"{name}.yaml").name == name
    assert required_keys(prompt) <= ROW.keys()
    assert "problem" in required_keys(prompt)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return replace(make_tokenizer(tmp_path_factory.mktemp("tiny")), chat_template="llama3.jinja")


@pytest.mark.parametrize("name", PROMPTS)
def test_bos_comes_once(name: str, model: Model) -> None:
    """Text gets it from the tokenizer; messages from the template, on the chat endpoint and as rendered text alike."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.hf_path)
    rendered = render(load(name), ROW)
    if isinstance(rendered, str):
        paths = [[tokenizer.bos_token_id, *tokenizer(rendered, add_special_tokens=False)["input_ids"]]]
        assert BOS not in rendered
    else:
        text = ChatTemplate.of(model).render(rendered)
        paths = [tokenizer(text, add_special_tokens=False)["input_ids"]]
        tokenizer.chat_template = chat_template_path(model).read_text()
        paths.append(
            tokenizer.apply_chat_template(rendered, add_generation_prompt=True, return_dict=True)["input_ids"]
        )
        assert paths[0] == paths[1]
    for ids in paths:
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1


def test_the_reward_prompt_is_what_its_chat_template_writes(model: Model) -> None:
    template = ChatTemplate.of(replace(model, chat_template="nemotron4_reward.jinja"))
    turns = [{"role": "user", "content": ROW["problem"]}, {"role": "assistant", "content": ROW["generation"]}]
    text = render(load("reward_model"), ROW)
    assert template.render(turns) == template.render([{"role": "system", "content": ""}, *turns], False) == text
    asked = template.render([{"role": "system", "content": "Be kind."}, turns[0]])
    assert asked.startswith("<extra_id_0>System\nBe kind.\n<extra_id_1>User\n")
    assert asked.endswith("?\n<extra_id_1>Assistant\n")


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("math_base", "Problem:\n{problem}\n\nSolution:\n"),
        ("openmath_code", "Problem:\n{problem}\n\nSolution:\n"),
        ("openmath_code_masked", "Problem:\n{problem}\n\nReference solution:\n{masked_solution}\n\nSolution:\n"),
        ("mask_solution", "Problem:\n{problem}\n\nReference solution:\n{solution}\n\nMasked solution:\n"),
    ],
)
def test_base_prompts_stop_where_the_next_example_would_start(name: str, end: str) -> None:
    prompt = load(name)
    assert prompt.stop == [prompt.separator] == ["\n" * 6]
    for key in ("problem", "solution", "masked_solution"):
        end = end.replace("{" + key + "}", ROW[key])
    assert str(render(prompt, ROW)).endswith(end)
    assert not any("\n" * 3 in text for shot in prompt.few_shot for text in shot.values())
    assert len(prompt.few_shot) >= 4


@cache
def examples(name: str) -> list[dict[str, str]]:
    loaded = OmegaConf.to_container(OmegaConf.load(resolvers.CONF / "few_shot" / f"{name}.yaml"))
    assert isinstance(loaded, dict)
    return loaded["examples"]


def _answers() -> dict[str, list[Any]]:
    """What each set's problems come to, by another way than the solutions take."""
    ages = next(3 * n for n in range(1, 100) if 3 * n + 8 == 2 * (n + 8))
    roots = Fraction(7, 2) ** 3 - 3 * 2 * Fraction(7, 2)
    marbles = Fraction(sum(sum(m < 5 for m in s) == 2 for s in combinations(range(9), 3)), comb(9, 3))
    not_prime = next(n for n in range(1, 99) if any((n * n + n + 41) % d == 0 for d in range(2, n * n + n + 41)))
    digits = [n for n in range(1001, 10000, 11) if sum(map(int, str(n))) == 10]
    assert all(n % 11 == 0 for n in digits)
    largest = Fraction(sum(max(roll) == 4 for roll in product(range(1, 7), repeat=3)), 216)
    heron = isqrt(prod((21, 21 - 7, 21 - 15, 21 - 20)))
    smaller = Fraction(9, 15) ** 2 * Fraction(9 * 12, 2)
    return {
        "gsm8k_text_detailed": [24 * 3 + 15 * 5 - 40, 450 // (5 * 18 + 2 * 30), 180 / 8, ages, 2 * 30 * 1.1],
        "math_text_detailed": [roots, (pow(7, 2023, 20) + pow(3, 2023, 20)) % 20, marbles, smaller],
        "math_code": [len(digits), not_prime, 2 * (2**2 - 7), Fraction(2 * heron, 42), largest],
    }


def _value(answer: str) -> Fraction:
    match = re.fullmatch(r"\\frac\{(\d+)\}\{(\d+)\}", answer)
    if match is None:
        return Fraction(answer)
    top, bottom = int(match[1]), int(match[2])
    assert gcd(top, bottom) == 1
    return Fraction(top, bottom)


@pytest.mark.parametrize("name", sorted(_answers()))
def test_worked_examples_are_right(name: str) -> None:
    answers = [boxed(shot["solution"]) for shot in examples(name)]
    assert [_value(str(answer)) for answer in answers] == pytest.approx([Fraction(a) for a in _answers()[name]])
    assert len(set(answers)) == len(answers)
    for shot in examples(name):
        assert shot["solution"].count("\\boxed") == 1
        assert wrong_statement(LLM_CODE.block.sub("", shot["solution"]), rel_tol=1e-9) is None


def test_every_solution_set_is_checked() -> None:
    """Toy sets are the toy world's own and checked with it; other sets with programs are test_code_examples.py's."""
    solved = {name for name in SETS if "solution" in examples(name)[0] and not name.startswith("toy_")}
    assert {name for name in solved if "_code" not in name and "_masking" not in name} | {
        "math_code"
    } == _answers().keys()


if __name__ == "__main__":
    import tempfile

    GOLDEN.mkdir(exist_ok=True)
    for written in PROMPTS:
        with tempfile.TemporaryDirectory() as empty:
            (GOLDEN / f"{written}.txt").write_bytes(as_seen(written, llama3(Path(empty))).encode())
