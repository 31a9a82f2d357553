"""Files of this machine: a file, a pattern, a stage's folder, or a folder laid out as on the Hugging Face hub."""

from pathlib import Path

from nemo_ext.rows.row import input_files, input_patterns
from nemo_ext.rows.split_files import split_files, split_patterns

FETCHED, IS_PATH = False, True


def files(address: str, split: str | None, made_in: Path) -> list[Path]:
    """The files, in order; raises ValueError where nothing is there, or several splits are and none is named."""
    if not split:
        return input_files(address)
    if not Path(address).is_dir():
        raise ValueError(
            f"split={split} says which files of a folder are meant, and {address} is not a folder (looked from {Path.cwd()})"
        )
    return split_files(address, Path(address), split)


def patterns(address: str, split: str | None) -> list[str]:
    return split_patterns(address, split) if split else input_patterns(address)
