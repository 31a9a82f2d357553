r"""A benchmark's settings (conf/benchmark/*.yaml), and how a row of its file becomes one of its problems.

    {"problem": "...", "solution": "... \boxed{3}", "level": "Level 4", "type": "Algebra"}
 -> {"id": "9c1e...", "benchmark": "math", "problem": "...", "expected_answer": "3", "level": 4, "subject": "Algebra", ...}

Light imports only.
"""

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from nemo_ext.rows.outside.columns import BadRow, renamed
from nemo_ext.rows.outside.known_shapes import normalise
from nemo_ext.rows.row import Row

ANSWER_TYPES = ("expression", "number", "integer")
KEEP_KEYS = ("level", "subject", "source", "answer")
ROW_KEYS = ("id", "problem", "answer", "solution", "level", "subject", "source")
OPTIONAL = frozenset({"level", "subject", "source", "id"})
UNDERSTOOD = (
    "the problem as `problem` or `question`; the answer as `expected_answer` or `answer`, or in a last \\boxed{} of "
    "`solution`, `reference_solution` or `generated_solution`; or what `columns` says"
)
_LEVEL = re.compile(r"(?:level\s*)?(\d+)(?:\.0+)?", re.IGNORECASE)
_COLUMN = re.compile(r"\{(\w+)\}")
_IN_PARENTHESES = re.compile(r"\s*\([^()]*\)")


@dataclass(kw_only=True)
class Benchmark:
    path: str = field(default=MISSING, metadata={"path": True, "or_folder": True})
    """A file; a folder laid out as on the Hugging Face hub; hf://<owner>/<data set>[@<revision>][/<folder>]; or
    toy://test/<source>."""
    split: str = "test"
    """The split whose files are read, where the source is a folder; several as train+test."""
    hub: str = ""
    """The hub's data set that has it, for the message that says how to get it."""
    columns: dict[str, Any] = field(default_factory=dict)
    """id, problem, answer, solution, level, subject or source -> the file's column, where that has another name. Of a list
    the texts are joined by a space. null: the column is not taken; without an answer, the last box of the solution is it."""
    template: list[str] = field(default_factory=list)
    """The problem's text, where several columns make it up: these parts, one after the other. {table} is what the file's
    column `table` holds, and of a list its items, one a line. A part that names an empty column is left out."""
    answer_type: str = "expression"
    """expression, number or integer; checked for every row."""
    answer_units: bool = False
    """Answers end in a unit in parentheses, as in `9 (apples)`, which is taken away."""
    keep: dict[str, Any] = field(default_factory=dict)
    """Only problems of this level, subject or source, each a value or a list; `answer: integer`: whose answer, as it is
    written, Python's float() reads as a whole number."""
    num_rows: int | None = None
    """How many problems it must have."""
    content_hash: str | None = None
    """Hash of its problems and answers (content_hash()). null: not checked; the manifest has what was found."""
    versions: dict[str, Any] = field(default_factory=dict, metadata={"decides": False})
    """Other distributions of it that have another content: name -> {num_rows, content_hash}. A file of conf/benchmark has a
    list of their names. They are named where the problems turn out to be theirs."""
    few_shot: str | None = None
    """The file of conf/few_shot whose worked examples are customary for it."""
    source: str = ""
    """Where it comes from."""


def check_settings(name: str, settings: Benchmark) -> None:
    """Raises ValueError for what no file can make right."""
    for given, allowed, what in (
        (settings.columns, ROW_KEYS, "columns"),
        (settings.keep, KEEP_KEYS, "keep"),
        ([settings.answer_type], ANSWER_TYPES, "answer_type"),
    ):
        if unknown := [key for key in given if key not in allowed]:
            raise ValueError(f"benchmark {name}: {what} has {unknown}; it may have {', '.join(allowed)}")
    if settings.template and "problem" in settings.columns:
        raise ValueError(
            f"benchmark {name}: the problem is made by `template` or is `columns.problem`: take one of them away"
        )
    if settings.keep.get("answer", "integer") != "integer":
        raise ValueError(f"benchmark {name}: keep.answer={settings.keep['answer']!r}; it may be `integer`")


def problem_of(raw: Row, name: str, settings: Benchmark, require_answers: bool = True) -> Row | None:
    """The row as a problem of the benchmark; None where `keep` leaves it out.

    Raises:
        BadRow: no_problem, no_answer, or what else is wrong with it.
    """
    row = normalise(_renamed(_filled(raw, settings.template), settings.columns), name, require_answers)
    row |= {"id": str(row["id"]), "benchmark": name}
    if settings.answer_units and row["expected_answer"] is not None:
        row["expected_answer"] = _IN_PARENTHESES.sub("", row["expected_answer"]).strip() or row["expected_answer"]
    if row.get("level") is not None:
        row["level"] = _level(row["level"])
    if not _is_kept(row, settings.keep):
        return None
    _check_answer(row["expected_answer"], settings.answer_type)
    return row


def _filled(raw: Row, template: list[str]) -> Row:
    """The row with the template's text as its problem, in the place of the columns that the text is made of.

    Raises:
        BadRow: it lacks a column that the template names.
    """
    if not template:
        return raw
    named = [_COLUMN.findall(part) for part in template]
    if lacking := [column for part in named for column in part if column not in raw]:
        raise BadRow(f"no column {', '.join(map(repr, lacking))}, which template names")
    texts = {column: _text(raw[column]) for part in named for column in part}
    parts = (
        _COLUMN.sub(lambda column: texts[column[1]], part)
        for part, columns in zip(template, named, strict=True)
        if all(texts[column] for column in columns)
    )
    return {key: value for key, value in raw.items() if key not in texts} | {"problem": "".join(parts)}


def _text(value: Any) -> str:
    """A list's items are one a line; null, and the NaN that parquet has for it, are empty."""
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    return "" if value is None or value != value else str(value).strip()


def _renamed(raw: Row, columns: dict[str, Any]) -> Row:
    if "answer" in columns:
        raw = {key: value for key, value in raw.items() if key != "expected_answer" or columns["answer"] == key}
    row = renamed(raw, columns, OPTIONAL)
    return row | {key: _one(row[key]) for key in ("answer", "expected_answer") if key in row}


def _one(answer: Any) -> Any:
    """One text of several answers, as some files list them; parquet's NaN in the place of a missing answer is None."""
    if isinstance(answer, list):
        return ", ".join(str(each).strip() for each in answer)
    return None if isinstance(answer, float) and not math.isfinite(answer) else answer


def _level(value: Any) -> Any:
    """`Level 3`, 3.0 and "3" are 3; anything else stays."""
    found = _LEVEL.fullmatch(str(value).strip())
    return int(found[1]) if found else value


def _is_kept(row: Row, keep: dict[str, Any]) -> bool:
    for key, wanted in keep.items():
        if key == "answer":
            if not is_integer(row["expected_answer"] or ""):
                return False
        elif row.get(key) not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def is_integer(answer: str) -> bool:
    r"""Whether float() reads the text as a whole number: 12, -3, 5. and 1e3 are; 1,000, \frac{4}{2} and 3^2 are not.

    NuminaMath's rule for its sets of MATH, by which levels 4 and 5 of the test split have 754 and 721 problems.
    """
    try:
        return float(answer) == int(float(answer))
    except (ValueError, OverflowError):
        return False


def _check_answer(answer: str | None, answer_type: str) -> None:
    if answer is None or answer_type == "expression":
        return
    plain = answer.replace(",", "").removeprefix("$")
    try:
        float(plain)
    except ValueError:
        raise BadRow(f"the answer {answer[:80]!r} is not a number, and answer_type says {answer_type}") from None
    if answer_type == "integer" and not is_integer(plain):
        raise BadRow(f"the answer {answer[:80]!r} is not a whole number, and answer_type says integer")


def content_hash(rows: Iterable[Row]) -> str:
    """Which problems and answers these are: 64 hex digits that depend on neither their order nor on the file they came in.

    sha256 over the sorted sha256 digests of one JSON array [problem, expected_answer] per row (UTF-8, no spaces after the
    comma), both texts in Unicode form NFC with every run of white space as one space and none around them.
    """
    digests = sorted(
        hashlib.sha256(
            json.dumps(
                [_plain(row["problem"]), _plain(row["expected_answer"])], ensure_ascii=False, separators=(",", ":")
            ).encode()
        ).digest()
        for row in rows
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _plain(text: str | None) -> str | None:
    return None if text is None else " ".join(unicodedata.normalize("NFC", text).split())
