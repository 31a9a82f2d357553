"""Filters for text that goes round in circles."""

from nemo_ext.curation.filters.context import Context, Row

_SUFFIX = 16  # characters; a loop's last ones have come before


def loop_at_end(
    row: Row, context: Context, *, min_repeats: int = 4, min_chars: int = 100, max_period: int = 400
) -> str | None:
    """The solution ends in the same characters, line or paragraph again and again, as a model that does not stop does.

    Args:
        min_repeats: how often.
        min_chars: length of all repeats together; so a row of dots or zeros is not yet a loop.
        max_period: characters of the longest unit that is looked for.
    """
    text = row["generated_solution"].rstrip()
    return "loop_at_end" if _loops(text, min_repeats, min_chars, max_period) else None


def _loops(text: str, min_repeats: int, min_chars: int, max_period: int) -> bool:
    tail = text[-(max_period * min_repeats + min_chars) :]
    if len(tail) < min_chars:
        return False
    suffix = tail[-_SUFFIX:]
    place = tail.rfind(suffix, 0, len(tail) - 1)
    while place >= 0:  # only where the end has come before can a period lie
        period = len(tail) - len(suffix) - place
        if period > max_period:
            return False
        # less one character: the line break that the last repeat has lost, or the first has not
        end = tail[-max(min_repeats * period - 1, min_chars) :]
        if len(end) >= min_repeats * period - 1 and end[period:] == end[:-period]:
            return True
        place = tail.rfind(suffix, 0, place + len(suffix) - 1)
    return False


def repeated_ngrams(row: Row, context: Context, *, n: int = 10, max_share: float = 0.3) -> str | None:
    """More than `max_share` of the solution's runs of `n` words have come before in it."""
    return "repeated_ngrams" if repeated_share(row["generated_solution"], n) > max_share else None


def repeated_share(text: str, n: int) -> float:
    """Share of the runs of `n` words that are not new, in [0, 1); 0 for a text with fewer than 2 n words."""
    words = text.split()
    count = len(words) - n + 1
    if len(words) < 2 * n:
        return 0.0
    return 1 - len(set(zip(*(words[i:] for i in range(n)), strict=False))) / count
