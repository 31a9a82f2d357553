"""A reply's text without the marks that set it bold, as code or as a quotation."""

import re

_MARKUP = re.compile(r"[*_`\"#>|]+|(?<!\w)'|'(?!\w)")


def plain(reply: str) -> str:
    return _MARKUP.sub("", reply).strip()
