"""What is wrong in the code published with OpenMathInstruct-1 (NeMo-Skills v0.1 and later), and is not so here: a test each.

How a result is executed and shown is in tests/nemo_ext/sandbox/test_public_defects.py.
"""

import re
from collections import Counter

import numpy as np
import pytest

from nemo_ext.curation.choosing.downsample import fair
from nemo_ext.curation.filter_chain import Step, apply
from nemo_ext.curation.filters.answer import trim_after_answer
from recipes.stages.curation.select_code import make_selection

CODE = "<llm-code>\nprint(4)\n</llm-code>\n<llm-code-output>\n4\n</llm-code-output>\nIt is 4."
TRACEBACK = "Traceback (most recent call last)"


def test_a_solution_is_trimmed_after_its_first_box() -> None:
    """Its docstring says after the last."""
    solution = "First \\boxed{1}.\nNo: it is\n\\boxed{2}.\nProblem:"
    assert trim_after_answer(solution) == "First \\boxed{1}.\nNo: it is\n\\boxed{2}."


@pytest.mark.parametrize(
    "solution", ["It is\n2.", "Let us see.\nx = 2\nThe answer is 2", "a\n\nb", "It is \\boxed{2\nor so"]
)
def test_a_solution_without_a_box_is_cut_to_its_first_line(solution: str) -> None:
    assert trim_after_answer(solution) == solution


@pytest.mark.parametrize("more", [0, 1, 100])
def test_fair_downsampling_to_all_rows_gives_none(more: int) -> None:
    problems = np.array([7, 7, 8, 9, 9, 9], np.uint64)
    assert fair(problems, len(problems) + more, seed=0).all()


def test_fair_downsampling_favours_the_problems_that_come_first() -> None:
    """They are shuffled behind the choice, so that the last round, which not all can be part of, takes the first ones."""
    problems = np.arange(100, dtype=np.uint64).repeat(2)
    extra = Counter(
        int(problem)
        for seed in range(40)
        for problem, count in Counter(problems[fair(problems, 110, seed)].tolist()).items()
        if count == 2
    )
    assert sum(extra.values()) == 400 and max(extra.values()) < 20, (
        "10 of 100 problems get two rows, other ones each time"
    )
    assert len(extra) > 80


def test_solutions_are_shuffled_without_a_seed() -> None:
    problems = np.arange(50, dtype=np.uint64).repeat(4)
    assert (fair(problems, 70, seed=3) == fair(problems, 70, seed=3)).all()
    assert (fair(problems, 70, seed=3) != fair(problems, 70, seed=4)).any()


def test_as_many_problems_are_filtered_by_code_as_the_tag_has_characters() -> None:
    """The tag goes into a map over problems as if it were another list: ten problems are looked at, with one character each."""
    rows = [
        {"id": f"{problem}", "problem": f"p{problem}", "generation": text}
        for problem in range(3 * len("<llm-code>"))
        for text in (CODE, "In words: 4.")
    ]
    kept = Counter(
        row["problem"] for row, reason in make_selection("any_code", None)(rows, Counter()) if reason is None
    )
    assert kept == {f"p{problem}": 1 for problem in range(30)}


def test_a_prefix_is_only_cut_where_solutions_are_trimmed() -> None:
    row = {"problem": "p", "generation": "My solution:\nIt is \\boxed{2}.\nProblem:"}
    assert apply(row, [Step("trim_prefix")])[0]["generated_solution"] == "It is \\boxed{2}.\nProblem:"


def test_a_traceback_is_sought_by_an_expression_that_does_not_match_it() -> None:
    assert re.search(TRACEBACK, TRACEBACK) is None, "the parentheses are a group"
    row = {"problem": "p", "generation": CODE.replace("\n4\n", f"\n{TRACEBACK}:\n  1\n")}
    assert apply(row, [Step("code_error")])[1] == "code_error"
    assert apply({"problem": "p", "generation": CODE}, [Step("code_error")])[1] is None
