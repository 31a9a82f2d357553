r"""Graded solutions of toy problems, as a run of OpenMathInstruct-1 leaves them: rows for what compares sets of rows.

Example: {"id": "9c1e...", "problem": "Ava has 347 pens. ...", "expected_answer": "44928", "problem_source": "gsm8k", ...,
          "strategy": "masked", "sample_index": 5, "generated_solution": "Let us compute it with Python.\n<llm-code>...",
          "predicted_answer": "44928", "is_correct": true}
They are drawn, no model wrote them. As with the real ones a problem has a difficulty: of an easy one most samples are right,
of a hard one few, and a masked reference helps; some solutions are in words; no two of a problem are the same.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nemo_ext.rows.row import Row, content_id
from nemo_ext.toy.problems import SOURCES, ToyProblem, distinct
from nemo_ext.toy.programs import subject_of, with_program

IN_WORDS = 0.16
"""Share of the samples that run no code; of OpenMathInstruct-1's 16.4 %."""


@dataclass(frozen=True)
class Manner:
    """How samples of one strategy read, so that none is like another's, and how often they are right."""

    endings: tuple[str, ...]
    """What comes after the answer: as many different solutions of a problem there are, with code and in words."""
    chance: Callable[[float], float]
    """Difficulty in [0, 1) -> how likely a sample is right."""
    sources: tuple[str, ...] = SOURCES


MANNERS = {
    "default": Manner(("", " That is all.", " So it is done.", " This is it."), lambda hard: 1 - hard),
    "masked": Manner((" Quite so.", " As it should be.", " No more is left.", " It fits."), lambda hard: 1 - hard**2),
    "subject": Manner(
        (" As always.", " All is found.", " Such it is.", " We are done."), lambda hard: 1 - hard, ("math",)
    ),
}


def traces(num_problems: int, num_samples: int, seed: int) -> Iterator[Row]:
    """Rows of `num_problems` training problems of each source, with numbers of 3 to 5 digits and up to `num_samples` samples
    under each strategy: those that say what an earlier one says are left out."""
    rng = random.Random(f"traces/{seed}")
    for source in SOURCES:
        for toy in distinct("train", source, num_problems, seed, large=True):
            hard, seen, index = rng.random(), set[str](), 0
            for strategy, manner in MANNERS.items():
                for _ in range(num_samples if source in manner.sources else 0):
                    row = _sample(toy, manner, hard, rng)
                    if row["generated_solution"] not in seen:
                        seen.add(row["generated_solution"])
                        yield _problem(toy) | {"strategy": strategy, "sample_index": index} | row
                        index += 1


def _problem(toy: ToyProblem) -> Row:
    return {
        "id": content_id(toy.problem),
        "problem": toy.problem,
        "expected_answer": toy.expected_answer,
        "problem_source": toy.source,
        "subject": subject_of(toy),
    }


def _sample(toy: ToyProblem, manner: Manner, hard: float, rng: random.Random) -> Row:
    ending, in_words, right = rng.choice(manner.endings), rng.random() < IN_WORDS, rng.random() < manner.chance(hard)
    answer = toy.expected_answer
    solution = (toy.solution if in_words else with_program(toy)) + ending
    if not right:
        answer = str(int(answer) + rng.randint(1, 9))
        solution = solution.replace(f"\\boxed{{{toy.expected_answer}}}", f"\\boxed{{{answer}}}")
    return {"generated_solution": solution, "predicted_answer": answer, "is_correct": right}
