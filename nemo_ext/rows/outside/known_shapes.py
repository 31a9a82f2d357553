r"""Rows of the data sets people have, brought to one shape: problem, expected_answer, solution, problem_source.

GSM8K                {"question": ..., "answer": "... <<2*3=6>>6 ...\n#### 72"}
MATH, NuminaMath     {"problem": ..., "solution": "... \\boxed{72}", "subject": ..., "level": ..., "source": ...}
OpenMathInstruct-2   {"problem": ..., "generated_solution": ..., "expected_answer": ..., "problem_source": ...}
OpenMathInstruct-1   {"question": ..., "generated_solution": ..., "is_correct": ...}
graded here          {"problem": ..., "generation": ..., "expected_answer": ..., "problem_source": ..., ...}
MetaMathQA           {"query": ..., "response": ...}
AMC, AIME            {"problem": ..., "answer": 27.0}
"""

import re
from typing import Any

from nemo_ext.grading.extract import boxed
from nemo_ext.rows.outside.columns import BadRow
from nemo_ext.rows.row import Row, content_id

CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")
FINAL = re.compile(r"\n?\s*####\s*(.+?)\s*$")
PROBLEMS = ("problem", "question", "query")
REFERENCES = ("solution", "reference_solution")
SOLUTIONS = ("generated_solution", "generation", *REFERENCES, "response", "completion", "output")
"""The first that holds a text is the row's solution."""


def problem_column(row: Row) -> str | None:
    """The column that has the row's problem."""
    return next((key for key in PROBLEMS if text_of(row.get(key))), None)


def solution_column(row: Row) -> str | None:
    """The column that has the row's solution; GSM8K's `answer` is one. A generated_solution that is empty has been
    emptied, and what it was made of is not taken in its place."""
    if row.get("generated_solution") is not None and not text_of(row["generated_solution"]):
        return None
    found = next((key for key in SOLUTIONS if text_of(row.get(key))), None)
    return found or ("answer" if _gsm8k(row) else None)


def solution_of(row: Row) -> str:
    r"""The row's solution, with GSM8K's `#### 72` as the box that prompts ask for; "" where it has none."""
    column = solution_column(row)
    if column is None:
        return ""
    return text_of(row[column]) if column != "answer" else _boxed_solution(row["answer"])


def normalise(raw: Row, source: str, require_answer: bool = True) -> Row:
    """{id, problem, expected_answer, problem_source} and, where the row has one, `solution`; other keys are kept.

    `id` is the row's own or, without one, a hash of the problem. `expected_answer` is None where there is none and none is
    required.

    Raises:
        BadRow: no_problem, no_answer.
    """
    column = problem_column(raw)
    if column is None:
        raise BadRow("no_problem")
    problem, solution = text_of(raw[column]), solution_of(raw)
    expected_answer = _expected(raw, solution)
    if require_answer and not expected_answer:
        raise BadRow("no_answer")
    row: Row = {
        "id": str(raw["id"]) if raw.get("id") not in (None, "") else content_id(problem),
        "problem": problem,
        "expected_answer": expected_answer or None,
        "problem_source": raw.get("problem_source") or source or text_of(raw.get("source")),
    }
    if solution:
        row["solution"] = solution
    taken = {column, "answer", *row}
    return row | {key: value for key, value in raw.items() if key not in taken}


def reference_answer(row: Row) -> str | None:
    """The box of the reference solution."""
    return next((answer for key in REFERENCES if (answer := boxed(text_of(row.get(key))))), None)


def text_of(value: Any) -> str:
    """The text without outer white space; "" for a value that is not text."""
    return value.strip() if isinstance(value, str) else ""


def _gsm8k(row: Row) -> re.Match[str] | None:
    answer = row.get("answer")
    return FINAL.search(answer) if isinstance(answer, str) and "####" in answer else None


def _boxed_solution(answer: str) -> str:
    found = FINAL.search(answer)
    assert found is not None, "solution_column says so"
    value = found[1].replace(",", "")
    # the training prompt asks for a box, and the published text ends in "#### 72"
    return f"{CALCULATOR_MARK.sub('', answer[: found.start()])}\nThe answer is \\boxed{{{value}}}."


def _expected(raw: Row, solution: str) -> str:
    if given := answer_text(raw.get("expected_answer")):
        return given
    if found := _gsm8k(raw):
        return found[1].replace(",", "")
    return answer_text(raw.get("answer")) or reference_answer(raw) or boxed(solution) or ""


def answer_text(value: Any) -> str:
    """An answer as text; 27.0, as AMC files have it, is 27."""
    if value is None or isinstance(value, bool | dict | list):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
