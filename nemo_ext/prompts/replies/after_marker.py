"""The text that a reply writes after a marker.

parse("I change the numbers.\\nNew problem: Ava has 9 pens.", marker="New problem:")  ->  "Ava has 9 pens."
"""


def parse(reply: str, *, marker: str, end: str | None = None) -> str | None:
    """The text behind the last `marker`, up to `end` where that is given and stands there, without outer white space.

    None: no marker, or nothing behind it.

    Raises:
        ValueError: an empty marker.
    """
    if not marker or end == "":
        raise ValueError(f"reply parser after_marker: marker={marker!r}, end={end!r}; neither may be empty")
    _, stands, text = reply.rpartition(marker)
    if end is not None:
        text = text.partition(end)[0]
    return text.strip() or None if stands else None
