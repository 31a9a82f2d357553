"""Read what a stage's Config says of its fields, next to their values in a resolved config. Light imports only.

metadata={"path": True}                       a file, a folder or a pattern, or a list of them
metadata={"path": True, "or_folder": True}    a file that may have another name: its folder is looked through
metadata={"model": True}                      a model's folder, or its name on the hub
metadata={"decides": False}                   where or with what limits the stage runs, not what it makes
metadata={"type_of": f}                       a mapping that names its own type: f(mapping) is a dataclass, or None
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import MappingProxyType, NoneType
from typing import Any, get_args, get_type_hints

Marks = Mapping[str, Any]
"""A field's metadata."""
UNMARKED: Marks = MappingProxyType({})


def changed(
    node: Any,
    schema: Any,
    change: Callable[[Any, Marks], Any] = lambda value, marks: value,
    keep: Callable[[Marks], bool] = lambda marks: True,
    marks: Marks = UNMARKED,
) -> Any:
    """A copy of `node`, a config of type `schema` as plain values: the fields that `keep` takes, each single value as
    `change` makes it."""
    if isinstance(node, Mapping):
        below = {key: _field(schema, marks, node, key) for key in node}
        return {
            key: changed(node[key], hint, change, keep, marked)
            for key, (hint, marked) in below.items()
            if keep(marked)
        }
    if isinstance(node, list):
        return [changed(value, _element(schema), change, keep, marks) for value in node]
    return change(node, marks)


def marked_values(node: Any, schema: Any, marks: Marks = UNMARKED, key: str = "") -> Iterator[tuple[str, Any, Marks]]:
    """(dotted key, value, marks) of every single value whose field is marked; items of a list share its key."""
    if isinstance(node, Mapping):
        for name, value in node.items():
            hint, below = _field(schema, marks, node, name)
            yield from marked_values(value, hint, below, f"{key}.{name}".lstrip("."))
    elif isinstance(node, list):
        for value in node:
            yield from marked_values(value, _element(schema), marks, key)
    elif marks:
        yield key, node, marks


def _field(schema: Any, marks: Marks, node: Mapping[str, Any], key: str) -> tuple[Any, Marks]:
    """Type and marks of what `node` has under `key`; values of a `dict[str, ...]` field have the field's marks."""
    known = marks["type_of"](node) if "type_of" in marks else _not_none(schema)
    if isinstance(known, type) and is_dataclass(known):
        return _fields(known).get(key, (Any, UNMARKED))
    values = get_args(known)
    return (values[1], marks) if len(values) == 2 else (Any, UNMARKED)


@cache
def _fields(schema: type) -> dict[str, tuple[Any, Marks]]:
    hints = get_type_hints(schema)
    return {field.name: (hints[field.name], field.metadata) for field in fields(schema)}


def _not_none(hint: Any) -> Any:
    """`Prompt` of `Prompt | None`."""
    options = get_args(hint)
    return next(option for option in options if option is not NoneType) if NoneType in options else hint


def _element(hint: Any) -> Any:
    return next(iter(get_args(_not_none(hint))), Any)
