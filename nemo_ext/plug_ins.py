"""Plug-ins found by file name: which there are, and their settings checked against what they take. Light imports only."""

import pkgutil
import types
import typing
from collections.abc import Mapping
from dataclasses import fields
from types import ModuleType
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException


def names(package: ModuleType) -> list[str]:
    """The modules of a package, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def typed(key: str, mapping: Mapping[str, Any], config: type) -> Any:
    """A mapping with `kind` as the dataclass `config` of that kind's file; `key`: what the mapping is called in a recipe.

    Raises:
        ValueError: an unknown key, a value of the wrong type, or a required one left out.
    """
    known = sorted(each.name for each in fields(config))
    for name in mapping:
        if name not in known:
            raise ValueError(f"{key}.{name}: unknown for kind={mapping['kind']!r}; it may be one of {known}")
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config), dict(mapping)))
    except OmegaConfBaseException as error:
        raise ValueError(f"{key}.{error.key}: {str(error).splitlines()[0]}") from error


def fits(value: Any, annotation: Any) -> bool:
    """Whether a value from YAML may be given for such a parameter: a list for a tuple of str, no bool for a number."""
    if isinstance(annotation, types.UnionType):
        return any(fits(value, each) for each in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    expected = typing.get_origin(annotation) or annotation
    return isinstance(value, expected) and isinstance(value, bool) == (expected is bool)
