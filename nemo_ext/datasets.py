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

from nemo_ext.columns import BadRow
from nemo_ext.grading.extract import boxed
from nemo_ext.rows import Row, content_id

CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")
FINAL = re.compile(r"\n?\s*####\s*(.+?)\s*$")
PROBLEMS = ("problem", "question", "query")
REFERENCES = ("solution", "reference_solution")
SOLUTIONS = ("generated_solution", "generation", *REFERENCES, "response", "completion", "output")
"""The first that holds a text is the row's solution."""


def problem_column(row: Row) -> str | None:
    """Which column has the row's problem."""
    return next((key for key in PROBLEMS if _text(row.get(key))), None)


def solution_column(row: Row) -> str | None:
    """Which column has the row's solution; GSM8K's `answer` is one. A generated_solution that is empty has been emptied, and
    what it was made of is not taken in its place."""
    if isinstance(row.get("generated_solution"), str) and not _text(row["generated_solution"]):
        return None
    found = next((key for key in SOLUTIONS if _text(row.get(key))), None)
    return found or ("answer" if _gsm8k(row) else None)


def solution_of(row: Row) -> str:
    r"""The row's solution, with GSM8K's `#### 72` as the box that prompts ask for; "" where it has none."""
    column = solution_column(row)
    if column is None:
        return ""
    return _text(row[column]) if column != "answer" else _boxed_solution(row["answer"])


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
    problem, solution = _text(raw[column]), solution_of(raw)
    expected_answer = _expected(raw, solution)
    if require_answer and not expected_answer:
        raise BadRow("no_answer")
    row: Row = {
        "id": str(raw["id"]) if raw.get("id") not in (None, "") else content_id(problem),
        "problem": problem,
        "expected_answer": expected_answer or None,
        "problem_source": raw.get("problem_source") or source or _text(raw.get("source")),
    }
    if solution:
        row["solution"] = solution
    taken = {column, "answer", *row}
    return row | {key: value for key, value in raw.items() if key not in taken}


def adopt(raw: Row) -> Row:
    r"""A person's own row under the pipeline's names, so that a curation stage can take it up; other keys are kept.

    `problem` (or question, query), `generation` where the row has a text of SOLUTIONS, `expected_answer` (or answer; of
    GSM8K's answer, what follows ####; else the box of `solution`), problem_source (or source) and `id`, its own or a hash of
    the problem, so that samples of a problem share it.

    Raises:
        BadRow: no_problem.
    """
    column = problem_column(raw)
    if column is None:
        raise BadRow("no_problem")
    problem: str = raw[column]
    row: Row = {
        "id": raw["id"] if raw.get("id") not in (None, "") else content_id(problem.strip()),
        "problem": problem,
    }
    row |= {key: value for key, value in raw.items() if key not in ("id", "problem", column)}
    if not isinstance(row.get("generation"), str):
        text = next((row[key] for key in SOLUTIONS if isinstance(row.get(key), str)), None)
        row |= {} if text is None else {"generation": text}
    if "expected_answer" not in row and "answer" in row:
        row["expected_answer"] = _final_answer(row.pop("answer"))
    if row.get("expected_answer") is None and (answer := _reference_answer(row)):
        row["expected_answer"] = answer
    if row.get("problem_source") is None and _text(row.get("source")):
        row["problem_source"] = row["source"]
    return row


def _final_answer(answer: Any) -> str | None:
    found = FINAL.search(answer) if isinstance(answer, str) else None
    return found[1].replace(",", "") if found else _answer(answer) or None


def _reference_answer(row: Row) -> str | None:
    return next((answer for key in REFERENCES if (answer := boxed(_text(row.get(key))))), None)


def _text(value: Any) -> str:
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
    if given := _answer(raw.get("expected_answer")):
        return given
    if found := _gsm8k(raw):
        return found[1].replace(",", "")
    return _answer(raw.get("answer")) or _reference_answer(raw) or boxed(solution) or ""


def _answer(value: Any) -> str:
    """An answer as text; 27.0, as AMC files have it, is 27."""
    if value is None or isinstance(value, bool | dict | list):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
