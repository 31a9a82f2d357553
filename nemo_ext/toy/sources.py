"""Toy rows in the place of real files: seed problems, and the benchmark they are measured on.

Example: {"id": "9c1e...", "problem": "Ava has 7 pens. ...", "expected_answer": "19", "problem_source": "gsm8k",
          "solution": "3 * 4 = 12. ...", "states_task": "toy://boxes/7/3/4"}
A seed row that restates a benchmark problem also has `contaminates`, that problem's id: what decontamination must find.
"""

import random

from nemo_ext.rows.row import Row, content_id
from nemo_ext.toy.problems import SOURCES, ToyProblem, distinct, paraphrase
from nemo_ext.toy.programs import subject_of

NUM_SOLVED = 2000
"""Problems per source in `solved`."""


def benchmark(source: str, count: int, large: bool = False) -> list[Row]:
    """The test problems of one source; always the same ones."""
    return [_row(toy, large) for toy in distinct("test", source, count, 0, large)]


def seeds(source: str, count: int, contaminated: int, seed: int, large: bool = False) -> list[Row]:
    """`count` different training problems, and after them `contaminated` benchmark problems in other words."""
    rng = random.Random(f"contaminate/{seed}/{source}")
    rows = [_row(toy, large) for toy in distinct("train", source, count, seed, large)]
    for toy in distinct("test", source, contaminated, 0, large) if contaminated else []:
        rows.append(_row(paraphrase(toy, rng), large) | {"contaminates": content_id(toy.problem)})
    return rows


def solved() -> list[Row]:
    """Training problems with their solutions, as a data set to fine-tune on."""
    return [row for source in SOURCES for row in seeds(source, NUM_SOLVED, contaminated=0, seed=0)]


def _row(toy: ToyProblem, with_subject: bool = False) -> Row:
    row = {
        "id": content_id(toy.problem),
        "problem": toy.problem,
        "expected_answer": toy.expected_answer,
        "problem_source": toy.source,
        "solution": toy.solution,
        "states_task": f"toy://{toy.key}",
    }
    return row | {"subject": subject_of(toy)} if with_subject else row
