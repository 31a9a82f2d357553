"""The filters and edits that a recipe may list by name: the functions of nemo_ext/curation/filters/*.py.

A filter is `(row, context, *, parameters) -> str | None`, which is the reason to drop the row; an edit is
`(solution, *, parameters) -> str`. They are found by that signature, so a new one is a function in a file of that folder and
nothing else. A module's `NEEDS` says which columns beyond problem and solution its filters read.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

import nemo_ext.curation.filters


def modules(package: ModuleType) -> list[ModuleType]:
    return [
        importlib.import_module(info.name) for info in pkgutil.iter_modules(package.__path__, package.__name__ + ".")
    ]


def functions(package: ModuleType, positional: tuple[str, ...], returns: Any) -> dict[str, FunctionType]:
    """The public functions of the package's modules with these positional parameters and this return type, by name.

    Raises:
        ValueError: two modules have one of the same name.
    """
    found: dict[str, FunctionType] = {}
    for module in modules(package):
        for name, function in vars(module).items():
            if not inspect.isfunction(function) or function.__module__ != module.__name__ or name.startswith("_"):
                continue
            signature = inspect.signature(function)
            names = tuple(each.name for each in signature.parameters.values() if each.kind is not each.KEYWORD_ONLY)
            if (names, signature.return_annotation) != (positional, returns):
                continue
            if name in found:
                raise ValueError(f"two filters are called {name}: in {found[name].__module__} and {module.__name__}")
            found[name] = function
    return found


FILTERS: dict[str, Callable[..., str | None]] = dict(
    functions(nemo_ext.curation.filters, ("row", "context"), str | None)
)
EDITS: dict[str, Callable[..., str]] = dict(functions(nemo_ext.curation.filters, ("solution",), str))
NEEDS: dict[str, tuple[str, ...]] = {
    name: columns
    for module in modules(nemo_ext.curation.filters)
    for name, columns in getattr(module, "NEEDS", {}).items()
}
"""Columns beyond problem and solution that a filter reads."""
