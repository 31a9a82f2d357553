"""Make the paths of a stage's config absolute, and find them. Fields that hold one say so (recipes/field_marks.py).

Stages run in the repository's folder and not where the person is who launches, so what is relative on the command line is
made absolute here.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from nemo_ext.rows.sources import is_path
from recipes.field_marks import Marks, changed, marked_values

ROOT_KEYS = ("data", "input", "second", "checkpoints", "publish_dir")
"""Root keys of conf/config.yaml."""


def absolute(path: str) -> str:
    """hf:// and toy:// are not paths."""
    return str(Path(path).expanduser().absolute()) if path and is_path(path) else path


def absolute_model(path: str) -> str:
    """A name of the hub looks like a relative path: a folder is meant where there is one."""
    return absolute(path) if path and Path(path).expanduser().is_dir() else path


def made_absolute(content: Mapping[Any, Any], schema: type) -> dict[str, Any]:
    """A stage's config, as plain values, with absolute paths, those of its variants too."""
    made: dict[str, Any] = changed(content, schema, _absolute)
    if isinstance(variants := content.get("variants"), dict):
        made["variants"] = {name: changed(keys, schema, _absolute) for name, keys in variants.items()}
    return made


def _absolute(value: Any, marks: Marks) -> Any:
    if not isinstance(value, str) or value == MISSING:
        return value
    return absolute(value) if marks.get("path") else absolute_model(value) if marks.get("model") else value


def absolute_paths(content: dict[str, Any], schema: type) -> Iterator[tuple[str, str, Marks]]:
    """(dotted key, path, marks) of what a stage's config names as files, folders and models by an absolute path."""
    for key, value, marks in marked_values(content, schema):
        if isinstance(value, str) and value.startswith("/") and (marks.get("path") or marks.get("model")):
            yield key, value, marks
