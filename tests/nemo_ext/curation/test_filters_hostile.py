"""What nobody should write and some file has: every filter and edit answers, and its work grows with the text, not faster."""

import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_ext.curation.duplicates.problem_sketch import band_hashes, normalised, telling
from nemo_ext.curation.filter_chain import EDITS, FILTERS, Step, apply
from nemo_ext.curation.filters.context import Context
from nemo_ext.curation.token_limits import _PIECE, Bounded
from tests.conftest import ROOT

TOKENIZER = (ROOT / "nemo_ext" / "serving" / "embedded" / "models" / "tiny_base" / "tokenizer.json").read_text()
CONTEXT = Context(Bounded(TOKENIZER))
# few enough tokens that every bait must be counted
STEPS = [Step(name, {"max_tokens": 20} if name.endswith("too_long") else {}) for name in sorted(FILTERS | EDITS)]

# What makes a careless pattern or loop try everything against everything: n units of it.
BAIT: dict[str, Callable[[int], str]] = {
    "braces": lambda n: "\\boxed{" + "{" * n,
    "closed_braces": lambda n: "\\boxed{" + "{" * n + "}" * n + "}",
    "boxes": lambda n: "\\boxed{1}" * n,
    "open_boxes": lambda n: "\\boxed{" * n,
    "digits": lambda n: "1" * n,
    "spaced_digits": lambda n: "1 " * n + "x",
    "digits_then_equals": lambda n: "1 " * n + "x = 3",
    "equals": lambda n: "=" * n,
    "chain": lambda n: "1 + 1 = 2 = " * n,
    "sums": lambda n: "a 1 + 1 = 2 " * n,
    "wrong_sums": lambda n: "f(x) 1 + 1 = 3x " * n,
    "sentences": lambda n: "1. 1 + 1 = 2. " * n,
    "long_sum": lambda n: "1 + " * n + "1 = 5",
    "brackets": lambda n: "(" * n + "1 = 2",
    "fractions": lambda n: "\\frac{" * n + "1 = 2",
    "whole_fractions": lambda n: "\\frac{1}{2} + " * n + "1 = 2",
    "slashes": lambda n: "1/" * n + "1 = 2",
    "spaces": lambda n: "1" + " " * n + "= 2",
    "trailing_spaces": lambda n: "x" + "\n \t" * n,
    "blank_lines": lambda n: "```\n" + "\n" * n + "x",
    "code_marks": lambda n: "<llm-code>" * n,
    "code_ends": lambda n: "</llm-code>" * n,
    "code": lambda n: "<llm-code>\n1\n</llm-code>\n<llm-code-output>\n1\n</llm-code-output>\n" * n,
    "fences": lambda n: "```python\n" * n,
    "indented_fences": lambda n: " " * n + "```",
    "errors": lambda n: "```python\n1\n```\n```output\n" + "Er" * n + "\n```\n",
    "loops": lambda n: "ab" * n,
    "almost_loops": lambda n: "a" * n + "b",
    "words": lambda n: "the same " * n,
    "no_ascii": lambda n: "\u00c3" * n,
    "mojibake": lambda n: "\u00c3\u00a9 " * n,
    "letters": lambda n: "\u4e2d" * n,
    "nul": lambda n: "\x00" * n,
    "commas": lambda n: "1," * n + "= 1",
    "dollars": lambda n: "$" * n,
    "backslashes": lambda n: "\\" * n,
    "output_numbers": lambda n: "```python\n1\n```\n```output\n" + "1.5 " * n + "\n```\n" + "2.5 " * n,
}
SIZE = 6000


def work(step: Step, text: str) -> int:
    """Python lines run: it counts loops, and, unlike a clock, it counts the same on every machine."""
    lines = 0

    def count(frame: object, event: str, argument: object) -> object:
        nonlocal lines
        lines += event == "line"
        return count

    sys.settrace(count)
    try:
        apply({"problem": text, "generation": text}, [step], CONTEXT)
    finally:
        sys.settrace(None)
    return lines


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_twice_the_text_is_at_most_some_two_times_the_lines(step: Step) -> None:
    for name, bait in BAIT.items():
        once, twice = (work(step, bait(size)) for size in (200, 400))
        assert twice <= 2.6 * once + 500, name


def seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


@pytest.mark.parametrize("name", BAIT)
def test_four_times_the_bait_is_not_sixteen_times_the_time(name: str) -> None:
    """What a pattern does inside the library, where lines are not seen. 10 ms are below what this can tell."""
    short, long = (BAIT[name](size) for size in (SIZE // 4, SIZE))
    for step in STEPS:
        filtered = lambda text, step=step: apply({"problem": text, "generation": text}, [step], CONTEXT)  # noqa: E731
        assert _at_most_ten_times(filtered, short, long), step.name
    for function in (_PIECE.findall, normalised, telling):
        assert _at_most_ten_times(function, short, long), function


def _at_most_ten_times(function: Callable[[str], object], short: str, long: str) -> bool:
    """In the best of a few tries: other work slows down now the one, now the other."""
    return any(seconds(lambda: function(long)) <= 10 * seconds(lambda: function(short)) + 0.01 for _ in range(5))


def test_near_duplicates_of_anything() -> None:
    texts = [bait(SIZE // 4) for bait in BAIT.values()]
    assert len(band_hashes([normalised(text) for text in [*texts, "", "\x00", "a"]], 0.8)) == len(texts) + 3


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(["\\boxed{", "}", "{", "=", "1", " + ", "2.5", "\n", "```python\n", "```output\n", "```\n", "<llm-code>",
                         "</llm-code>", "<llm-code-output>", "</llm-code-output>", "My solution:\n", "\\frac{1}{2}", "(", ")", "\u00c3\u00a9"])
        | st.text(max_size=6),
        max_size=30,
    ).map("".join),
    st.text(max_size=30),
)  # fmt: skip
def test_never_raises_and_says_its_own_reason(solution: str, problem: str) -> None:
    for step in STEPS:
        row, reason = apply({"problem": problem, "generation": solution}, [step], CONTEXT)
        assert row["generation"] == solution and isinstance(row["generated_solution"], str)
        assert reason in (None, step.name, "no_answer", "small_majority")


@pytest.mark.parametrize("value", [None, 3, 1.5, True, [], {}, ["a"]])
def test_other_columns_of_another_type(value: object) -> None:
    for step in STEPS:
        row = {
            "problem": "p",
            "generation": "s",
            "predicted_answer": value,
            "is_correct": value,
            "finish_reason": value,
        }
        assert apply(row, [step], CONTEXT)[1] in (
            None,
            step.name,
            "no_answer",
            "problem_too_short",
            "solution_too_short",
        )


@pytest.mark.parametrize(("votes", "total"), [("8", 32), (8, "32"), (None, 3), (True, 3), (8, 0), (-1, -2), ([], 1)])
def test_votes_that_are_no_numbers(votes: object, total: object) -> None:
    row = {"problem": "p", "generation": "s", "majority_votes": votes, "total_votes": total}
    assert apply(row, [Step("majority", {"min_share": 0.1})])[1] in (None, "small_majority")
