"""The rows of a benchmark: of one file, of a folder as the Hugging Face hub lays it out, or of a data set fetched there."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from nemo_ext.rows.outside.read import placed_rows
from nemo_ext.rows.row import ROW_FILES, Row
from nemo_ext.rows.schemes.hf import HUB, fetched
from nemo_ext.rows.sources import data_files, is_path
from nemo_ext.rows.split_files import split_files


def benchmark_files(name: str, path: str, split: str, made_in: Path, hub: str = "") -> list[Path]:
    """The files of the split, in order; `made_in`: where those go that have to be made.

    Raises:
        ValueError: nothing there, or no such split; says what is there, or how to get it.
    """
    what = f"benchmark {name}"
    if not path.startswith(HUB) and not is_path(path):
        return data_files(path, None, made_in)
    found = fetched(path, split, f"{what}: ") if path.startswith(HUB) else Path(path)
    if found.is_file():
        if not found.name.endswith(ROW_FILES):
            raise ValueError(f"{what}: {found}: expected a file that ends in {', '.join(ROW_FILES)}")
        return [found]
    folder = found.parent if found.name.endswith(ROW_FILES) else found  # a download from the hub has other names in it
    get = f"hf download {hub} --repo-type dataset --local-dir {folder}" if hub else "get it from where it is published"
    if not folder.is_dir():
        raise ValueError(f"{what}: no such file: {path} (looked from {Path.cwd()}). To have it: {get}")
    return split_files(what, folder, split, get)


def read_benchmark(files: list[Path]) -> Iterator[tuple[str, Row | str]]:
    """(file, line and row number, the row or what is wrong with the line) of each.

    Raises:
        ValueError: a file that is cut off or damaged, or of another form.
    """
    return chain.from_iterable(placed_rows(path) for path in files)
