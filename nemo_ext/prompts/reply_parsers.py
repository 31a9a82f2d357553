"""The reply parsers that a recipe may name: the files of nemo_ext/prompts/replies.

    parse = parser("score", {"high": 4})
    parse("The last step is unclear.\\nScore: 3/4")  ->  3.0

A parser is a file with `parse(reply: str, *, parameters) -> value | None`, found by the file's name; a list is one value
after another. None: the reply does not say so clearly. An unclear reply is never taken for a clear one, and the caller
decides what to do with it: ask again, keep, drop.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import nemo_ext.prompts.replies
from nemo_ext import plug_ins


def names() -> list[str]:
    return plug_ins.names(nemo_ext.prompts.replies)


def parser(name: str, params: Mapping[str, Any]) -> Callable[[str], Any]:
    """The parser of that name with its parameters set.

    Raises:
        ValueError: an unknown name or parameter, one that is missing, or a value of another type.
    """
    if name not in names():
        raise ValueError(f"reply parser {name!r}: unknown; it may be one of {', '.join(names())}")
    parse = importlib.import_module(f"{nemo_ext.prompts.replies.__name__}.{name}").parse
    known = {key: each for key, each in inspect.signature(parse).parameters.items() if each.kind is each.KEYWORD_ONLY}
    takes = ", ".join(known) or "none"
    for key, value in params.items():
        if key not in known:
            raise ValueError(f"reply parser {name}: unknown parameter {key}; it takes {takes}")
        if not plug_ins.fits(value, known[key].annotation):
            wanted = getattr(known[key].annotation, "__name__", str(known[key].annotation))
            raise ValueError(f"reply parser {name}: {key}={value!r} is not {wanted}")
    for key, each in known.items():
        if each.default is each.empty and key not in params:
            raise ValueError(f"reply parser {name} needs {key}; its parameters: {takes}")
    return partial(parse, **params)
