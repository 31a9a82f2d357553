"""The whole reply, where the next question is asked about it as it is.

parse(" A draft.\\n")  ->  "A draft."
"""


def parse(reply: str) -> str | None:
    """The text without outer white space. None: there is none."""
    return reply.strip() or None
