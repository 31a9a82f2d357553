"""Toy problems with large numbers, their programs, and their masked solutions."""

import contextlib
import io
import itertools
import random
import re

import pytest

from nemo_ext.curation.choosing.masking import HIDDEN, Attempts
from nemo_ext.curation.filters.code import has_code
from nemo_ext.grading.extract import boxed
from nemo_ext.prompts.prompt import Prompt
from nemo_ext.toy import problems
from nemo_ext.toy.corpus import CoderPrompts, coder_rows
from nemo_ext.toy.programs import masked, program, subject_of, with_program


def some(source: str, large: bool) -> list[problems.ToyProblem]:
    return list(itertools.islice(problems.stream("train", source, 0, large), 400))


@pytest.mark.parametrize("source", problems.SOURCES)
@pytest.mark.parametrize("large", [False, True])
def test_programs_print_the_answer_and_masked_solutions_hide_it(source: str, large: bool) -> None:
    for toy in some(source, large):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(program(toy))
        assert printed.getvalue() == f"{toy.expected_answer}\n"
        trace = with_program(toy)
        assert has_code(trace) and boxed(trace) == toy.expected_answer
        if toy.expected_answer not in toy.problem:
            assert toy.expected_answer not in masked(toy)
            assert Attempts(toy.problem, toy.solution, toy.expected_answer).add(masked(toy)) == HIDDEN


@pytest.mark.parametrize("source", problems.SOURCES)
def test_every_number_of_a_large_problem_has_three_to_five_digits(source: str) -> None:
    for toy in some(source, large=True):
        assert {len(number) for number in re.findall(r"\d+", toy.problem)} <= {3, 4, 5}
        assert problems.identify(toy.problem) == toy.key and int(toy.expected_answer) >= 0


def test_large_and_small_problems_are_never_the_same_task() -> None:
    large, small = ({toy.key for source in problems.SOURCES for toy in some(source, size)} for size in (True, False))
    assert not large & small


def test_a_coder_learns_every_task_and_sees_no_test_problem() -> None:
    def prompt(text: str) -> Prompt:
        return Prompt(name=text, template="base", user=text + " {problem}")

    by_source = [{source: prompt(task) for source in problems.SOURCES} for task in ("solve", "masked", "mask")]
    solve, with_masked, mask = by_source
    prompts = CoderPrompts(solve, with_masked, {"value": prompt("value")}, mask)
    rows = list(coder_rows(prompts, 2000, seed=0))
    assert rows == list(coder_rows(prompts, 2000, seed=0))
    tasks = [row["input"].partition(" ")[0] for row in rows]
    assert set(tasks) == {"solve", "masked", "mask", "value"}
    for row, task in zip(rows, tasks, strict=True):
        key = problems.identify(row["input"].partition(" ")[2])
        assert key and problems.split_of(key) == "train"
        assert (task == "mask") == (re.search(r"\\boxed\{N\}", row["output"]) is not None)
    in_code = sum(has_code(row["output"]) for row, task in zip(rows, tasks, strict=True) if task != "mask")
    assert 0.7 < in_code / (len(rows) - tasks.count("mask")) < 0.86


def test_a_subject_is_the_kind_of_the_problem() -> None:
    toy = problems.make("equation", (512, 347, 128), random.Random(0))
    assert subject_of(toy) == "equation"
