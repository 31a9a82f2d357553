"""Training text of the tiny teacher, the tiny coder and the tiny base student. Only tasks of the `train` split.

The teacher learns the very prompts the pipeline sends it: to solve problems, to write new ones, to answer zero-shot. The
coder learns to solve problems with programs, alone, with a masked reference solution, and by subject, and to mask one.
The base student is like a real one: it has seen many solved problems, in other formats than the one SFT will teach, and
no chat.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nemo_ext.prompts.prompt import Prompt, render
from nemo_ext.rows.row import Row
from nemo_ext.toy.problems import SOURCES, ToyProblem, stream
from nemo_ext.toy.programs import masked, subject_of, with_program

LARGE, CODE_OF_LARGE, CODE_OF_SMALL = 0.7, 0.9, 0.5
"""Shares of the coder's rows: problems with large numbers, and those that a program solves, of them and of the others."""


@dataclass(frozen=True)
class TeacherPrompts:
    """Prompts by source, as the recipe has them; `answer` is the zero-shot one of evaluation."""

    solve: Mapping[str, Prompt]
    write: Mapping[str, Prompt]
    answer: Prompt


def teacher_rows(prompts: TeacherPrompts, count: int, seed: int) -> Iterator[Row]:
    """`count` training rows: half solving as the recipe asks, a quarter each writing problems and answering zero-shot."""
    rng = random.Random(f"teacher/{seed}")
    streams = {source: stream("train", source, seed) for source in SOURCES}
    for index in range(count):
        source = SOURCES[index % len(SOURCES)]
        toy = next(streams[source])
        task = rng.choice(["solve", "solve", "write", "answer"])
        if task == "write":
            yield _row(prompts.write[source], toy, next(streams[source]).problem)
        else:
            yield _row(prompts.solve[source] if task == "solve" else prompts.answer, toy, toy.solution)


@dataclass(frozen=True)
class CoderPrompts:
    """Prompts by source, and by subject, as the recipe has them."""

    solve: Mapping[str, Prompt]
    masked: Mapping[str, Prompt]
    by_subject: Mapping[str, Prompt]
    mask: Mapping[str, Prompt]


def coder_rows(prompts: CoderPrompts, count: int, seed: int) -> Iterator[Row]:
    """`count` training rows: a third solving alone, a third with a masked reference, the others by subject (where the
    subject has a prompt) and masking solutions."""
    rng = random.Random(f"coder/{seed}")
    streams = {(source, large): stream("train", source, seed, large) for source in SOURCES for large in (False, True)}
    for index in range(count):
        source, large = SOURCES[index % len(SOURCES)], rng.random() < LARGE
        toy = next(streams[source, large])
        task = rng.choice(["solve", "solve", "masked", "masked", "by_subject", "mask"])
        if task == "mask":
            yield _row(prompts.mask[source], toy, masked(toy))
            continue
        in_code = rng.random() < (CODE_OF_LARGE if large else CODE_OF_SMALL)
        prompt = prompts.masked[source] if task == "masked" else prompts.solve[source]
        if task == "by_subject":
            prompt = prompts.by_subject.get(subject_of(toy), prompt)
        yield _row(prompt, toy, with_program(toy) if in_code else toy.solution)


def _row(prompt: Prompt, toy: ToyProblem, answer: str) -> Row:
    rendered = render(prompt, {"problem": toy.problem, "solution": toy.solution, "masked_solution": masked(toy)})
    if isinstance(rendered, str):
        return {"input": rendered, "output": answer}
    return {"messages": [*rendered, {"role": "assistant", "content": answer}]}


def base_rows(count: int, seed: int) -> Iterator[Row]:
    """`count` texts: solved problems in three layouts, none of them the one SFT teaches, and unsolved ones."""
    rng = random.Random(f"base/{seed}")
    streams = {source: stream("train", source, seed + 1) for source in SOURCES}
    for index in range(count):
        toy = next(streams[SOURCES[index % len(SOURCES)]])
        steps = toy.solution.split(" The answer is")[0]
        layout = rng.randrange(4)
        if layout == 0:
            text = f"Question: {toy.problem}\nWorking: {steps}\nResult: {toy.expected_answer}"
        elif layout == 1:
            text = f"{toy.problem} We compute {steps[:-1]}, so it is {toy.expected_answer}."
        elif layout == 2:
            text = f"# Exercise\n{toy.problem}\n# Notes\n{steps}\n# Final value\n{toy.expected_answer}"
        else:
            text = toy.problem
        yield {"text": text}
