"""The forms in which rows hold the solution that a model wrote, besides `generation` alone."""

from collections.abc import Callable
from typing import Any

import pytest

Row = dict[str, Any]


def only_generated_solution(row: Row) -> Row:
    return {"generated_solution" if key == "generation" else key: value for key, value in row.items()}


def null_beside(row: Row) -> Row:
    return row | {"generated_solution": None}


def before_it_was_edited(row: Row) -> Row:
    return row | {"generation": "as it was", "generated_solution": row["generation"]}


FORMS: list[Callable[[Row], Row]] = [only_generated_solution, null_beside, before_it_was_edited]
in_every_form = pytest.mark.parametrize("form", FORMS)
