"""Find rows by the scheme of their address: nemo_ext/rows/schemes/<scheme>.py, found by file name.

data_files("hf://nvidia/OpenMathInstruct-2", "train", folder)   # .../data/train-00000-of-00032.parquet, ...
data_files("openmathinstruct2", "train_1M", folder)
data_files("data/train-*.parquet", None, folder)
data_files("toy://solved", None, folder)
"""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from nemo_ext import plug_ins
from nemo_ext.rows import schemes

_SCHEME = re.compile(r"([a-z][a-z0-9_]*)://")


def scheme_of(source: str) -> ModuleType:
    """The module of the address's scheme.

    Raises:
        ValueError: there is none of that name.
    """
    matched = _SCHEME.match(source)
    name = matched[1] if matched else "file"
    known = plug_ins.names(schemes)
    if name not in known:
        others = ", ".join(f"{each}://" for each in known if each != "file")
        raise ValueError(f"{source}: no scheme {name}://; there are {others}, and paths")
    return importlib.import_module(f"{schemes.__name__}.{name}")


def data_files(source: str, split: str | None, made_in: Path) -> list[Path]:
    """The row files, in order.

    Args:
        split: which of a folder's or the hub's, several as train+test.
        made_in: a folder of the stage's own, for files that have to be made first.

    Raises:
        ValueError: nothing there, no such split, or several splits and none is named.
    """
    found: list[Path] = scheme_of(source).files(source, split, made_in)
    return found


def data_patterns(source: str, split: str | None) -> list[str]:
    """Patterns of the files that would be among `data_files`, those included that are not there yet."""
    found: list[str] = scheme_of(source).patterns(source, split)
    return found


def comes_meanwhile(source: str) -> bool:
    """Its files appear while a stage runs: they are fetched, or made."""
    return bool(scheme_of(source).FETCHED)


def teller_of_tasks(address: str) -> Callable[[str], str | None] | None:
    """What tells a problem's task, an address as this one, from its text; None: a scheme that cannot."""
    told: Callable[[str], str | None] | None = getattr(scheme_of(address), "task_of", None)
    return told


def is_path(source: str) -> bool:
    """It names files of this machine."""
    return bool(scheme_of(source).IS_PATH)
