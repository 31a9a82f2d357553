"""The files of a split in a folder that is laid out as on the Hugging Face hub.

split_files("data=omi2", Path("omi2"), "train_1M")   # omi2/data/train_1M-00000-of-00003.parquet, ...
"""

import glob
from pathlib import Path

from nemo_ext.rows.row import ROW_FILES

# in this order: a file of the split, parts of it, then both in data/, then in the folder of a configuration
_PATTERNS = ("{split}.*", "{split}-*", "data/{split}.*", "data/{split}-*", "*/{split}.*", "*/{split}-*")


def split_files(what: str, folder: Path, split: str, get: str = "") -> list[Path]:
    """The files of the split, or of several joined by +, in a folder laid out as on the hub.

    Args:
        what: how an error begins.
        get: how to have the files, for an error.

    Raises:
        ValueError: no such split, or more than once.
    """
    return [file for each in split.split("+") for file in _of_split(what, folder, each.strip(), get)]


def _of_split(what: str, folder: Path, split: str, get: str) -> list[Path]:
    for pattern in _PATTERNS:
        files = sorted(file for file in folder.glob(pattern.format(split=split)) if file.name.endswith(ROW_FILES))
        if len({file.parent for file in files}) > 1:
            choices = ", ".join(str(each) for each in sorted({file.parent for file in files}))
            raise ValueError(f"{what}: {folder} has the split {split!r} more than once; give one of {choices}")
        if files:
            return files
    there = sorted({file.name for each in ("*", "*/*") for file in folder.glob(each) if file.name.endswith(ROW_FILES)})
    raise ValueError(
        f"{what}: {folder} has no files of the split {split!r} ({split}.jsonl, data/{split}-*.parquet); it has "
        f"{', '.join(there[:12]) or 'no file of rows'}. Set split, or path to one of them{get and f'; or {get}'}"
    )


def split_patterns(folder: str, split: str) -> list[str]:
    """Patterns of the files that would be among `split_files`, those included that are not there yet."""
    place, patterns = glob.escape(folder), list[str]()
    for each in split.split("+"):
        for pattern in _PATTERNS:
            stem = pattern.format(split=glob.escape(each.strip())).removesuffix(".*")
            patterns += [f"{place}/{stem}{ending}" for ending in ROW_FILES]
            if any(glob.glob(one) for one in patterns[-len(ROW_FILES) :]):
                break
    return patterns
