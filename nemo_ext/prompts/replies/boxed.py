r"""The content of a reply's last box.

parse(r"3 * 4 = 12, so it is \boxed{12}.")  ->  "12"
"""

from nemo_ext.grading.extract import boxed


def parse(reply: str) -> str | None:
    r"""The content of the last complete `\boxed{}` that is not empty."""
    return boxed(reply)
