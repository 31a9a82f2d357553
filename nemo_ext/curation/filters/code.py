"""Filters that look at the code of tool-integrated solutions: is it whole, did it run, did it serve a purpose?

A solution whose marks do not pair up is the business of `broken_code` alone: the others let it pass.
"""

import re
from itertools import chain

from nemo_ext.curation.code_blocks import Block, blocks
from nemo_ext.curation.filters.context import Context, Row

NEEDS = {"invented_output": ("trace",)}

_BOX = re.compile(r"\\boxed(?![A-Za-z])")
# What Python and the sandboxes of OpenMathInstruct-1, ToRA and this repository print when code fails.
_ERROR = re.compile(
    r"Traceback \(most recent call last\)|^[ \t]*+[\w.]*(?:Error|Exception|Interrupt)(?::|$)"
    r"|(?i:(?:execution|syntax|undefined) error:|result is not defined|max code executions reached)"
    r"|^The (?:block printed more than \d+ KB and was stopped|Python process ended before the block did)$"
    r"|<not_executed>|^[ \t]*+(?i:timeout|timed out)\b",
    re.MULTILINE,
)
_WORD = re.compile(r"(?P<number>\d++(?:\.\d++)?)|[^\W\d_]{2,}")
_THOUSANDS = re.compile(r"(?<=\d)(?:,|\{,\}|\\,)(?=\d{3}(?!\d))")
_MAX_DECIMALS = 8
_MAX_DIGITS = 15  # of a float
_VERIFIES = re.compile(
    r"\b(?:verif(?:y|ies|ied|ying|ication)|double[- ]check|confirm(?:s|ing)?|check(?:s|ing)?)\b", re.IGNORECASE
)


def broken_code(row: Row, context: Context) -> str | None:
    """Marks of code and output that do not pair up or are out of order."""
    return "broken_code" if blocks(row["generated_solution"]) is None else None


def no_code(row: Row, context: Context) -> str | None:
    """A solution in words alone."""
    return "no_code" if not has_code(row["generated_solution"]) else None


def code_error(row: Row, context: Context, *, last_only: bool = False) -> str | None:
    """Code that failed. `last_only`: a failure that later code made good is kept."""
    outputs = [block for block in _whole(row) if block.kind == "output"]
    failed = [block for block in (outputs[-1:] if last_only else outputs) if _ERROR.search(block.text)]
    return "code_error" if failed else None


def invented_output(row: Row, context: Context) -> str | None:
    """An output that no execution has written, by the `trace` of what ran: the model made it up, in marks of another format
    perhaps."""
    trace = row.get("trace")
    ran = trace.get("results", trace.get("executions")) if isinstance(trace, dict) else None
    shown = sum(block.kind == "output" for block in _whole(row))
    return "invented_output" if shown > (ran if isinstance(ran, int) else 0) else None


def code_after_answer(row: Row, context: Context) -> str | None:
    """A box before the first code: the code was not needed."""
    code = _code(row)
    boxed_first = bool(code) and _BOX.search(row["generated_solution"], 0, code[0].start) is not None
    return "code_after_answer" if boxed_first else None


def verification_code(row: Row, context: Context) -> str | None:
    """All code is announced as a check of what was found without it ("Let us verify this:")."""
    code, solution = _code(row), row["generated_solution"]
    announced = [_VERIFIES.search(_announcement(solution, block)) is not None for block in code]
    return "verification_code" if announced and all(announced) else None


def unused_code_output(row: Row, context: Context) -> str | None:
    """Nothing that the code printed is taken up after it, not even rounded: the solution goes on as if it had not run."""
    outputs = [block for block in _whole(row) if block.kind == "output"]
    if not outputs:
        return None
    solution = row["generated_solution"]
    ends = [*(block.start for block in outputs[1:]), len(solution)]
    taken_up = False
    for block, end in zip(outputs, ends, strict=True):
        # up to the next output, where the text is still about this one; the last word is the solution's end
        printed = _spellings(block.text)
        taken_up = taken_up or not printed.isdisjoint(_words(solution[block.end : end]))
    return None if taken_up else "unused_code_output"


def has_code(text: str) -> bool:
    """Does it hold a whole code block?"""
    return any(block.kind == "code" for block in blocks(text) or ())


def _whole(row: Row) -> list[Block]:
    return blocks(row["generated_solution"]) or []


def _code(row: Row) -> list[Block]:
    return [block for block in _whole(row) if block.kind == "code"]


def _announcement(solution: str, block: Block) -> str:
    """The last lines of text before the block, and the comment that its code begins with."""
    before = solution[max(0, block.start - 200) : block.start].rstrip().rsplit("\n", 1)[-1]
    first_line = block.text.split("\n", 1)[0]
    return before + "\n" + (first_line if first_line.lstrip().startswith("#") else "")


def _words(text: str) -> set[str]:
    return {match.group().lower() for match in _WORD.finditer(_THOUSANDS.sub("", text))}


def _spellings(printed: str) -> set[str]:
    """Its numbers with all or fewer of their decimals; where it has none, its words."""
    matches = list(_WORD.finditer(printed))
    numbers = [match["number"] for match in matches if match["number"]]
    if not numbers:
        return {match.group().lower() for match in matches}
    return {*numbers, *chain.from_iterable(map(_rounded, numbers))}


def _rounded(number: str) -> list[str]:
    whole, _, decimals = number.partition(".")
    if not decimals or len(whole) > _MAX_DIGITS:
        return []
    places = range(1, min(len(decimals), _MAX_DECIMALS) + 1)
    value = float(number)
    return [whole, f"{value:.0f}", *(f"{value:.{n}f}" for n in places), *(f"{whole}.{decimals[:n]}" for n in places)]
