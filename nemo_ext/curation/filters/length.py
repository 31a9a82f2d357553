"""Filters that look at lengths. Of a row's problem and solution, in tokens of the student's tokenizer and in characters.

A limit that is None is not held; with two, a row that breaks either is dropped.
"""

from nemo_ext.curation.filters.context import Context, Row


def problem_too_long(
    row: Row, context: Context, *, max_tokens: int | None = 1024, max_chars: int | None = None
) -> str | None:
    """NeMo-Skills: 1,024 Llama tokens."""
    return "problem_too_long" if _above(row["problem"], context, max_tokens, max_chars) else None


def problem_too_short(
    row: Row, context: Context, *, min_chars: int | None = 20, min_tokens: int | None = None
) -> str | None:
    """A problem of fewer characters than "What is 12 times 7?" is most often a fragment."""
    return "problem_too_short" if _below(row["problem"], context, min_tokens, min_chars) else None


def solution_too_long(
    row: Row, context: Context, *, max_tokens: int | None = 1024, max_chars: int | None = None
) -> str | None:
    """NeMo-Skills: 1,024 Llama tokens."""
    return "solution_too_long" if _above(row["generated_solution"], context, max_tokens, max_chars) else None


def solution_too_short(
    row: Row, context: Context, *, min_chars: int | None = 200, min_tokens: int | None = None
) -> str | None:
    """NeMo-Skills counts characters here, not tokens, and so do we."""
    return "solution_too_short" if _below(row["generated_solution"], context, min_tokens, min_chars) else None


def _above(text: str, context: Context, max_tokens: int | None, max_chars: int | None) -> bool:
    if max_chars is not None and len(text) > max_chars:
        return True
    return max_tokens is not None and context.tokens.above(text, max_tokens)


def _below(text: str, context: Context, min_tokens: int | None, min_chars: int | None) -> bool:
    if min_chars is not None and len(text) < min_chars:
        return True
    return min_tokens is not None and context.tokens.below(text, min_tokens)
