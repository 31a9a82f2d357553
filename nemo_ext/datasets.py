r"""Rows of the data sets people have, brought to one shape: problem, expected_answer, solution, problem_source.

GSM8K                {"question": ..., "answer": "... <<2*3=6>>6 ...\n#### 72"}
MATH                 {"problem": ..., "solution": "... \\boxed{72}", "subject": ..., "level": ...}
OpenMathInstruct-2   {"problem": ..., "generated_solution": ..., "expected_answer": ..., "problem_source": ...}
graded here          {"problem": ..., "generation": ..., "expected_answer": ..., "problem_source": ..., ...}
AMC, AIME            {"problem": ..., "answer": 27.0}
"""

import re
from typing import Any

from nemo_ext.grading.extract import boxed
from nemo_ext.rows import Row, content_id

CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")
FINAL = re.compile(r"\n?\s*####\s*(.+?)\s*$")


class BadRow(ValueError):
    """A row that cannot be used; the message is the reason it is dropped under."""


def normalise(raw: Row, source: str) -> Row:
    """{id, problem, expected_answer, problem_source} and, where the row has one, `solution`; other keys are kept.

    `id` is the row's own or, without one, a hash of the problem.

    Raises:
        BadRow: no_problem, no_answer.
    """
    problem = _text(raw.get("problem")) or _text(raw.get("question"))
    if not problem:
        raise BadRow("no_problem")
    solution, expected_answer = _solution_and_answer(raw)
    row = {
        "id": str(raw["id"]) if raw.get("id") not in (None, "") else content_id(problem),
        "problem": problem,
        "expected_answer": expected_answer,
        "problem_source": raw.get("problem_source") or source,
    }
    if solution:
        row["solution"] = solution
    taken = {"question", "answer", *row}
    return row | {key: value for key, value in raw.items() if key not in taken}


GENERATIONS = ("generation", "generated_solution", "solution", "response", "completion", "output")


def adopt(raw: Row) -> Row:
    """A person's own row under the pipeline's names, so that a curation stage can take it up; other keys are kept.

    `problem` (or question), `generation` where the row has a text of GENERATIONS, `expected_answer` (or answer; of
    GSM8K's answer, what follows ####) and `id`, its own or a hash of the problem, so that samples of a problem share it.

    Raises:
        BadRow: no_problem.
    """
    problem = raw.get("problem") if isinstance(raw.get("problem"), str) else raw.get("question")
    if not isinstance(problem, str) or not problem.strip():
        raise BadRow("no_problem")
    row: Row = {
        "id": raw["id"] if raw.get("id") not in (None, "") else content_id(problem.strip()),
        "problem": problem,
    }
    row |= {key: value for key, value in raw.items() if key not in ("id", "problem", "question")}
    if not isinstance(row.get("generation"), str):
        text = next((row[key] for key in GENERATIONS if isinstance(row.get(key), str)), None)
        row |= {} if text is None else {"generation": text}
    if "expected_answer" not in row and "answer" in row:
        row["expected_answer"] = _final_answer(row.pop("answer"))
    return row


def _final_answer(answer: Any) -> str | None:
    found = FINAL.search(answer) if isinstance(answer, str) else None
    return found[1].replace(",", "") if found else _answer(answer) or None


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _solution_and_answer(raw: Row) -> tuple[str | None, str]:
    if "generated_solution" in raw or "generation" in raw:
        generated = _text(raw.get("generated_solution", raw.get("generation")))
        return generated, _answer(raw.get("expected_answer")) or _boxed(generated)
    answer = raw.get("answer")
    if isinstance(answer, str) and (match := FINAL.search(answer)):
        value = match[1].replace(",", "")
        # the training prompt asks for a box, and the published text ends in "#### 72"
        return f"{CALCULATOR_MARK.sub('', answer[: match.start()])}\nThe answer is \\boxed{{{value}}}.", value
    solution = _text(raw.get("solution")) or _text(raw.get("reference_solution")) or None
    expected = _answer(raw.get("expected_answer")) or _answer(answer) or _boxed(solution or "")
    return solution, expected


def _answer(value: Any) -> str:
    """An answer as text; 27.0, as AMC files have it, is 27."""
    if value is None or isinstance(value, bool | dict | list):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _boxed(solution: str) -> str:
    answer = boxed(solution)
    if not answer:
        raise BadRow("no_answer")
    return answer
