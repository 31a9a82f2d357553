r"""Functions given case by case, and systems of equations.

listed(r"\begin{cases}x=1\\y=2\end{cases}")      ->  "x=1,y=2"
cases(r"\begin{cases}1&x>0\\0&x\le 0\end{cases}")  ->  [("1", "x>0"), ("0", r"x\le 0")]
"""

import re
from collections.abc import Callable

from nemo_ext.grading.verdict import DIFFERENT, EQUAL, UNDECIDED, Verdict

Decide = Callable[[str, str], Verdict | None]

_ROWS = re.compile(
    r"(?P<before>[^\\]*?)(?:\\begin\{(?:cases|aligned|align\*?|gathered)\}|\\\{\\begin\{array\}\{[lcr| ]*\})"
    r"(?P<rows>.*?)\\end\{(?:cases|aligned|align\*?|gathered|array)\}",
    re.DOTALL,
)
_NAME = re.compile(r"(?:[A-Za-z](?:\([a-z]\))?=)?")
_CONDITION = re.compile(r"^(.+?)[,;]?(?: |(?<=[^A-Za-z]))(if|when|for|otherwise|else)\b ?(.*)$")
_FIRST_WORD = re.compile(r"^(?:if|when|for|where) ?")
_ELSE = frozenset(("otherwise", "else", "elsewhere"))


def _rows(text: str) -> list[str] | None:
    found = _ROWS.fullmatch(text)
    if found is None or not _NAME.fullmatch(found["before"]):
        return None
    return [row for row in found["rows"].split("\\\\") if row.strip()]


def listed(text: str) -> str:
    r"""A system of equations as the list of them, another answer as it is."""
    rows = _rows(text) if "\\begin" in text else None
    if rows is None or text[0] != "\\":
        return text
    equations = [row.replace("&=", "=").replace("=&", "=").strip(" ,;.") for row in rows]
    if any("&" in row or "=" not in row or _CONDITION.match(row) for row in equations):
        return text
    return ",".join(equations)


def cases(text: str) -> list[tuple[str, str]] | None:
    """(value, condition) of every row; None when it is no function given case by case."""
    rows = _rows(text) if "\\begin" in text else None
    if rows is None:
        return None
    found = [_case(row) for row in rows]
    return None if None in found else [each for each in found if each]


def _case(row: str) -> tuple[str, str] | None:
    if "&" in row:
        value, condition, *more = row.split("&")
        if more:
            return None
    elif (worded := _CONDITION.match(row)) is not None:
        value, condition = worded[1], worded[3] or worded[2]
    else:
        return None
    condition = _FIRST_WORD.sub("", condition.strip(" ,;.")).strip()
    return value.strip(" ,;."), "otherwise" if condition in _ELSE else condition


def compare_cases(left: str, right: str, decide: Decide) -> Verdict | None:
    """Case by case, in any order. Other conditions may still describe the same function, so they decide nothing."""
    ours, theirs = cases(left), cases(right)
    if ours is None or theirs is None:
        return None
    open_verdict = Verdict(UNDECIDED, "cases")
    if len(ours) != len(theirs):
        return open_verdict
    values = []
    for value, condition in ours:
        match = [other for other, under in theirs if condition == under or bool(decide(condition, under))]
        if len(match) != 1:
            return open_verdict
        values.append(decide(value, match[0]))
    found = {each.equality if each is not None else UNDECIDED for each in values}
    equality = DIFFERENT if DIFFERENT in found else UNDECIDED if UNDECIDED in found else EQUAL
    return Verdict(equality, "cases")
