"""The values of a stage's config that name files and folders.

Stages run in the repository's folder and not where the person is who launches, so what is relative on the command line is
made absolute here.
"""

from pathlib import Path
from typing import Any

from omegaconf import MISSING

from nemo_ext.rows.sources import is_path

ROOT_KEYS = ("data", "input", "second", "checkpoints", "publish_dir")
"""Root keys of conf/config.yaml."""
READ = (
    "data", "input", "inputs", "first", "second", "path", "benchmarks", "checkpoints", "seeds", "evaluations", "texts",
)  # fmt: skip
"""Keys of stages' configs for what is read: a path or a list of paths."""
MODELS = ("hf_path", "encoder")
"""The same of models, which may be names of the hub instead."""
NO_PATHS = ("columns", "keep", "params")
"""Keys of mappings whose own keys are a person's, and may be called `input`."""


def absolute(path: str) -> str:
    """hf:// and toy:// are no paths."""
    return str(Path(path).expanduser().absolute()) if path and is_path(path) else path


def absolute_model(path: str) -> str:
    """A name of the hub looks like a relative path: a folder is meant where there is one."""
    return absolute(path) if Path(path).expanduser().is_dir() else path


def made_absolute(node: Any, key: str = "") -> Any:
    """A stage's config, as plain values, with absolute paths."""
    if isinstance(node, dict) and key not in NO_PATHS:
        return {name: made_absolute(value, str(name)) for name, value in node.items()}
    if isinstance(node, list):
        return [made_absolute(value, key) for value in node]
    if not isinstance(node, str) or node == MISSING:
        return node
    return absolute(node) if key in READ else absolute_model(node) if key in MODELS else node
