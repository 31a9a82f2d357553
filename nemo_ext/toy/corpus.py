"""Training text of the tiny teacher and the tiny base student. Only tasks of the `train` split.

The teacher learns the very prompts the pipeline sends it: to solve problems, to write new ones, to answer zero-shot.
The base student is like a real one: it has seen many solved problems, in other formats than the one SFT will teach, and
no chat.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nemo_ext.prompts.prompt import Prompt, render
from nemo_ext.rows.row import Row
from nemo_ext.toy.problems import SOURCES, ToyProblem, stream


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


def _row(prompt: Prompt, toy: ToyProblem, answer: str) -> Row:
    rendered = render(prompt, {"problem": toy.problem})
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
