r"""Filters and edits that look at the answer: is it right, agreed on, boxed once, and where does the solution end?"""

import re

from nemo_ext.curation.filters.context import Context, Row
from nemo_ext.grading.extract import last_box

NEEDS = {"incorrect": ("is_correct",), "truncated": ("finish_reason",), "majority": ("majority_votes", "total_votes")}

_BOX = re.compile(r"\\boxed(?![A-Za-z])")
_CLOSES_DISPLAY_MATH = ("\\end{", "\\]", "$$")


def incorrect(row: Row, context: Context) -> str | None:
    """No answer was found, or it is not the expected one."""
    if "predicted_answer" in row and row["predicted_answer"] is None:
        return "no_answer"
    return None if row.get("is_correct") is True else "incorrect"


def truncated(row: Row, context: Context) -> str | None:
    """The teacher ran out of tokens."""
    return "truncated" if row.get("finish_reason") == "length" else None


def majority(row: Row, context: Context, *, min_votes: int = 0, min_share: float = 0.0) -> str | None:
    """Too few solutions agreed on the answer. Rows whose answer was given, not voted on, pass."""
    votes, total = row.get("majority_votes"), row.get("total_votes")
    if votes is None or total is None:
        return None
    if not isinstance(votes, int | float) or not isinstance(total, int | float):
        return "small_majority"
    enough = votes >= min_votes and (votes / total if total else 0.0) >= min_share
    return None if enough else "small_majority"


def multiple_boxes(row: Row, context: Context) -> str | None:
    r"""More than one \boxed, finished or not: which one is the answer is then a guess."""
    solution = row["generated_solution"]
    several = solution.count("\\boxed") > 1 and len(_BOX.findall(solution)) > 1
    return "multiple_boxes" if several else None


def no_box(row: Row, context: Context) -> str | None:
    """The solution boxes no answer."""
    return "no_box" if last_box(row["generated_solution"]) is None else None


def trim_prefix(solution: str, *, prefix: str = "My solution:\n") -> str:
    """Remove what a few-shot prompt makes a teacher repeat."""
    return solution.removeprefix(prefix)


def trim_after_answer(solution: str) -> str:
    r"""Keep everything through the line on which the last box ends, and the next line when it closes display math.

    A solution without a whole box stays as it is. (NeMo-Skills of December 2024 cut after the first box, and cut a
    solution without a box on one line to its first line.)
    """
    box = last_box(solution)
    if box is None:
        return solution
    kept, newline, rest = solution[box.end :].partition("\n")
    next_line = rest.split("\n", 1)[0]
    if newline and next_line.lstrip().startswith(_CLOSES_DISPLAY_MATH):
        kept += newline + next_line
    return solution[: box.end] + kept
