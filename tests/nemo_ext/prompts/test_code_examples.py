"""Worked examples that run programs, and those with masked reference solutions: what they print, and that they are right."""

import contextlib
import io
import re
from fractions import Fraction
from itertools import combinations, permutations, product
from math import cos, pi, sin, sqrt
from typing import Any

import pytest
from omegaconf import OmegaConf

from launchers.planning import resolvers
from nemo_ext.curation.arithmetic.statements import wrong_statement
from nemo_ext.curation.choosing.masking import HIDDEN, Attempts
from nemo_ext.grading.equal import equal
from nemo_ext.grading.extract import boxed
from nemo_ext.sandbox.formats import LLM_CODE
from nemo_ext.toy.problems import identify, split_of

FEW_SHOT = resolvers.CONF / "few_shot"
OUTPUT = re.compile(r"<llm-code-output>\n(.*?)</llm-code-output>\n", re.DOTALL)
CODE_SETS = sorted(path.stem for path in FEW_SHOT.glob("*_code*.yaml") if "masked" not in path.stem)


def examples(name: str) -> list[dict[str, str]]:
    loaded = OmegaConf.to_container(OmegaConf.load(FEW_SHOT / f"{name}.yaml"))
    assert isinstance(loaded, dict)
    return loaded["examples"]


def programs() -> list[Any]:
    return [
        pytest.param(shot["solution"], id=f"{name}-{n}") for name in CODE_SETS for n, shot in enumerate(examples(name))
    ]


@pytest.mark.parametrize("solution", programs())
def test_worked_programs_print_what_is_shown(solution: str) -> None:
    shown, blocks = OUTPUT.findall(solution), LLM_CODE.block.findall(solution)
    assert len(blocks) == len(shown) >= 1
    names: dict[str, Any] = {}
    for code, output in zip(blocks, shown, strict=True):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        assert printed.getvalue() == output
        assert f"{LLM_CODE.closing}\n{LLM_CODE.before_output}{output.rstrip()}{LLM_CODE.after_output}" in solution
    assert solution.count("\\boxed") == 1 and solution.index("\\boxed") > solution.rindex("</llm-code-output>")


def answers() -> dict[str, list[Any]]:
    """What each set's problems come to, by another way than the solutions take."""
    digits = [n for n in range(101, 500) if eval("*".join(str(n))) == 24]
    swapped = [p for p in primes(100) if p > 9 and int(f"{p % 10}{p // 10}") in primes(100)]
    marbles = list(combinations("r" * 5 + "b" * 4 + "g" * 3, 3))
    tosses = [t for t in product("ht", repeat=7) if t.count("h") == 3 and t[-1] == "h"]
    bisected = 7 / 15 * sqrt(7**2 + 8**2 - 2 * 7 * 8 * cos(pi / 3))
    least = min(
        (x / 10) ** 2 + 4 * (y / 10) ** 2 - 2 * x * y / 100 - 6 * x / 10 + 3
        for x, y in product(range(-99, 99), repeat=2)
    )
    angles = [sin(2 * pi * k / 12) for k in range(12)]
    return {
        "gsm8k_code": [45 * 3 + 7 * 18 + 32 * 3 + 11 * 18, 300 - (5 * 24 + 6 * 10), 360 / 9, 24, 200 + 1500 / 15],
        "math_code_prealgebra": [26, Fraction(20 - 9 + 6, 24), 90 - 66, 160 * 0.8625, len(digits)],
        "math_code_algebra": [12, 3 * 25 - 25 + 2, 11, 14, 4 * 5],  # 4 + 5 = 9 and 64 + 125 = 189
        "math_code_number_theory": [
            2 ** 50 % 7, 4 * 3 * 3, next(n for n in range(3, 316, 5) if n % 7 == 4 and n % 9 == 5), sum(swapped),
            len(range(4, 1001, 11)),
        ],
        "math_code_counting_and_probability": [
            Fraction(3 + 2 + 1, 36), 56 * 15, len({p for p in permutations("BANANA") if "NN" not in "".join(p)}),
            Fraction(sum(len(set(drawn)) == 3 for drawn in marbles), len(marbles)), Fraction(len(tosses), 2**7),
        ],
        "math_code_geometry": [14 * 9, Fraction(20 * 21, 29), 84 / 21, 25 * 12 / 4, bisected**2],
        "math_code_intermediate_algebra": [27 - 36 + 18 - 7, 3 * 2870 - 210, 5**2 - 2 * 3, 7, least],
        "math_code_precalculus": [
            12 - 10 + 7, 2 * (-1 - 8) - (0 - 20) + 3 * 5, 2 * Fraction(5, 13) * Fraction(-12, 13),
            sum(abs(2 * (1 - s * s) + 3 * s - 3) < 1e-9 for s in angles), 7,
        ],
    }  # fmt: skip


def primes(below: int) -> list[int]:
    return [n for n in range(2, below) if all(n % d for d in range(2, n))]


@pytest.mark.parametrize("name", sorted(answers()))
def test_worked_answers_are_right(name: str) -> None:
    found = [boxed(shot["solution"]) or "" for shot in examples(name)]
    assert len(set(found)) == len(found) == 5
    for answer, right in zip(found, answers()[name], strict=True):
        top, _, bottom = answer.removeprefix("-").replace("\\frac{", "").rstrip("}").partition("}{")
        value = (-1 if answer.startswith("-") else 1) * Fraction(int(top), int(bottom or 1))
        assert float(value) == pytest.approx(float(right), abs=1e-9)


def test_every_set_is_checked() -> None:
    assert {name for name in CODE_SETS if not name.startswith("toy_")} == answers().keys() | {"math_code"}


@pytest.mark.parametrize("kind", ["gsm8k", "math", "toy_gsm8k", "toy_math"])
def test_masked_examples_hide_the_answer_as_the_chooser_wants_it(kind: str) -> None:
    code, masking, masked = (f"{kind}_code", f"{kind}_masking", f"{kind}_code_masked")
    if kind.startswith("toy_"):
        source = kind.removeprefix("toy_")
        code, masking, masked = (f"toy_{what}_{source}" for what in ("code", "masking", "masked"))
    for solved, hidden, shown in zip(examples(code), examples(masking), examples(masked), strict=True):
        assert {**solved, "masked_solution": hidden["masked_solution"]} == shown
        assert hidden["problem"] == solved["problem"]
        answer = boxed(solved["solution"])
        assert (
            answer and equal(boxed(hidden["solution"]), answer) and wrong_statement(hidden["solution"], 1e-9) is None
        )
        attempts = Attempts(hidden["problem"], hidden["solution"], answer)
        assert attempts.add(hidden["masked_solution"]) == HIDDEN


@pytest.mark.parametrize("name", [name for name in CODE_SETS if name.startswith("toy_")])
def test_toy_examples_are_training_problems(name: str) -> None:
    for shot in examples(name):
        key = identify(shot["problem"])
        assert key and split_of(key) == "train"
        assert boxed(shot["solution"]) == OUTPUT.findall(shot["solution"])[0].strip()
