"""Flaws of completions that arrived whole. Such completions are kept, and counted."""

EMPTY, LENGTH, REPETITION, OK = "empty", "length", "repetition", "ok"
TAIL = 384  # characters looked at
REPEATS = 4


def content_class(text: str, finish_reason: str | None) -> str:
    """`empty`, `repetition` (it ran into its limit while saying the same thing over and over), `length`, or `ok`."""
    if not text.strip():
        return EMPTY
    if finish_reason == "length":
        return REPETITION if ends_in_loop(text) else LENGTH
    return OK


def ends_in_loop(text: str) -> bool:
    """Whether the last TAIL characters are one piece repeated at least REPEATS times."""
    tail = text[-TAIL:]
    return len(tail) == TAIL and _period(tail) * REPEATS <= TAIL


def _period(text: str) -> int:
    """The least p with text[i] == text[i + p] throughout: the length less that of the longest border (Knuth, Morris,
    Pratt 1977)."""
    borders = [0] * len(text)
    length = 0
    for i in range(1, len(text)):
        while length and text[i] != text[length]:
            length = borders[length - 1]
        if text[i] == text[length]:
            length += 1
        borders[i] = length
    return len(text) - borders[-1]
