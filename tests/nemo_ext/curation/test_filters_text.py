"""Repetition, encodings, symbols, scripts and language."""

import json
from pathlib import Path

import pytest

from nemo_ext.curation.filter_chain import Step, apply
from nemo_ext.curation.filters.repetition import repeated_share

DATA = Path(__file__).parents[4] / "shared" / "data"
ENGLISH = (
    "Ava has 12 pens and she buys 3 boxes of 4 pens each, so that she now has 12 + 3 * 4 = 24 pens in all. If each of them "
    "is worth 2 dollars then the value of what she has is 48 dollars."
)
GERMAN = (
    "Anna kauft drei Kisten mit jeweils vier Stiften und besitzt danach insgesamt zwanzig Stifte, wovon sie sieben Stifte "
    "ihrer Freundin Lena schenkt, die ihrerseits noch keine besitzt. Wie viele Stifte bleiben Anna danach noch insgesamt?"
)
LINE = "Wait, let me check that again.\n"


@pytest.mark.parametrize(
    ("step", "solution", "drops"),
    [
        (Step("loop_at_end"), ENGLISH, False),
        (Step("loop_at_end"), ENGLISH + "\n" + LINE * 4, True),
        (Step("loop_at_end"), ENGLISH + "\n" + LINE * 3, False),
        (Step("loop_at_end"), ENGLISH + LINE * 9 + LINE[:11], True),
        (Step("loop_at_end"), ENGLISH + "0.3" + "3" * 120, True),
        (Step("loop_at_end"), ENGLISH + "0.3" + "3" * 40, False),
        (Step("loop_at_end"), ENGLISH + " so" * 60, True),
        (Step("loop_at_end"), (ENGLISH + "\n") * 4, True),
        (Step("loop_at_end", {"max_period": 100}), (ENGLISH + "\n") * 4, False),
        (Step("loop_at_end", {"min_repeats": 2}), ENGLISH + "\n" + LINE * 4, True),
        (Step("loop_at_end", {"min_repeats": 12}), ENGLISH + LINE * 9, False),
        (Step("loop_at_end"), LINE * 9 + ENGLISH, False),
        (Step("loop_at_end"), "", False),
        (Step("repeated_ngrams"), ENGLISH, False),
        (Step("repeated_ngrams"), LINE * 9 + ENGLISH, True),
        (Step("repeated_ngrams", {"max_share": 0.9}), LINE * 9 + ENGLISH, False),
        (Step("repeated_ngrams", {"n": 40}), LINE * 9 + ENGLISH, False),
        (Step("control_characters"), ENGLISH, False),
        (Step("control_characters"), "a\tb\r\nc", False),
        (Step("control_characters"), "a\x00b", True),
        (Step("control_characters"), "a\x1bb", True),
        (Step("control_characters"), "a\ufffdb", True),
        (Step("control_characters", {"columns": ["problem"]}), "a\x00b", False),
        (Step("mojibake"), "Janet\u2019s caf\u00e9 costs \u20ac5 \u2013 45\u00b0, \u221a2 \u2264 \u03c0", False),
        (Step("mojibake"), "\u201c\u00c9t\u00e9\u201d na\u00efve \u00c4\u00d6\u00dc", False),
        (Step("mojibake"), "Janet\u00e2\u20ac\u2122s", True),
        (Step("mojibake"), "caf\u00c3\u00a9", True),
        (Step("mojibake"), "45\u00c2\u00b0", True),
        (Step("symbols"), ENGLISH, False),
        (Step("symbols"), "#$%^&*()_+{}|:<>?" * 5 + "abc", True),
        (Step("symbols"), "#$%^&", False),
        (Step("symbols", {"max_share": 0.99}), "#$%^&*()+{}|:<>?" * 5 + "abc", False),
        (Step("wrong_script"), ENGLISH + " \u03c0 \u03b1", False),
        (Step("wrong_script"), ENGLISH + " \u211d \U0001d54f \u00e9", False),
        (Step("wrong_script"), "\u0441\u043a\u043e\u043b\u044c\u043a\u043e", True),
        (Step("wrong_script"), "\u7b54\u6848\u662f 5", True),
        (Step("wrong_script"), ENGLISH + " \u7b54", False),
        (
            Step("wrong_script", {"scripts": ["CYRILLIC", "LATIN"]}),
            "\u0441\u043a\u043e\u043b\u044c\u043a\u043e",
            False,
        ),
        (Step("not_english", {"columns": ["generated_solution"]}), ENGLISH, False),
        (Step("not_english", {"columns": ["generated_solution"]}), GERMAN, True),
        (Step("not_english"), "x = 3, y = 4", False),
        (Step("not_english"), "```python\n" + "value = compute(other)\n" * 20 + "```\nIt is 4.", False),
    ],
)
def test_text_filter(step: Step, solution: str, drops: bool) -> None:
    row = {"problem": "What is left of it?", "generation": solution}
    assert apply(row, [step])[1] == (step.name if drops else None)


def test_repeated_share_counts_runs_of_words() -> None:
    assert repeated_share("a b c d e f", 2) == 0.0
    assert repeated_share("a b a b a b", 2) == pytest.approx(3 / 5)
    assert repeated_share("a a", 2) == 0.0


def test_real_solutions_pass() -> None:
    """MATH-500 and GSM8K, written by people: what these filters look for is hardly ever there."""
    if not DATA.exists():
        pytest.skip(f"{DATA} is missing")
    math = [json.loads(line) for line in (DATA / "math500_test.jsonl").read_text().splitlines()]
    gsm = [json.loads(line) for line in (DATA / "gsm8k_test.jsonl").read_text().splitlines()]
    rows = [{"problem": row["problem"], "generation": row["solution"]} for row in math]
    rows += [{"problem": row["question"], "generation": row["answer"]} for row in gsm]
    for name in (
        "loop_at_end",
        "repeated_ngrams",
        "control_characters",
        "mojibake",
        "symbols",
        "wrong_script",
        "not_english",
    ):
        dropped = [row for row in rows if apply(row, [Step(name)])[1]]
        assert len(dropped) <= 3, (name, [row["generation"] for row in dropped])
