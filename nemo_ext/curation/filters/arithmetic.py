"""Filters and edits that look at the arithmetic written in a solution."""

from nemo_ext.curation.arithmetic import splitting
from nemo_ext.curation.arithmetic.statements import wrong_statement
from nemo_ext.curation.filters.context import Context, Row


def incorrect_arithmetic(row: Row, context: Context, *, rel_tol: float = 1e-4) -> str | None:
    """A statement like `3 + 4 = 8` in the solution."""
    return "incorrect_arithmetic" if wrong_statement(row["generated_solution"], rel_tol) else None


def split_arithmetic(solution: str) -> str:
    """Write out what a sum skips: one operation a step."""
    return splitting.split_arithmetic(solution)
