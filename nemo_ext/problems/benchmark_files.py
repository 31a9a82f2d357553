"""The rows of a benchmark: of one file, of a folder as the Hugging Face hub lays it out, or of a data set fetched there."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from nemo_ext.problems.published_forms import csv_rows, rows_by_id
from nemo_ext.rows.outside.read import placed_rows
from nemo_ext.rows.row import ROW_FILES, Row
from nemo_ext.rows.schemes.hf import HUB, fetched
from nemo_ext.rows.sources import data_files, is_path
from nemo_ext.rows.split_files import split_files

BENCHMARK_FILES = (*ROW_FILES, ".csv")


def benchmark_files(name: str, path: str, split: str, made_in: Path, hub: str = "", source: str = "") -> list[Path]:
    """The files of the split, in order.

    Args:
        made_in: where those go that have to be made.
        hub, source: where it is published, for the message where it is not here.

    Raises:
        ValueError: nothing there, or no such split; says what is there, or how to get it.
    """
    what = f"benchmark {name}"
    if not path.startswith(HUB) and not is_path(path):
        return data_files(path, None, made_in)
    found = fetched(path, split, f"{what}: ") if path.startswith(HUB) else Path(path)
    if found.is_file():
        if not found.name.endswith(BENCHMARK_FILES):
            raise ValueError(f"{what}: {found}: expected a file that ends in {', '.join(BENCHMARK_FILES)}")
        return [found]
    folder = (
        found.parent if found.name.endswith(BENCHMARK_FILES) else found
    )  # a download from the hub has other names in it
    get = f"hf download {hub} --repo-type dataset --local-dir {folder}" if hub else "get it from where it is published"
    get += f": {source}" if source and not hub else ""
    if not folder.is_dir():
        raise ValueError(f"{what}: no such file: {path} (looked from {Path.cwd()}). To have it: {get}")
    return split_files(what, folder, split, get)


def read_benchmark(files: list[Path]) -> Iterator[tuple[str, Row | str]]:
    """(file, line and row number, the row or what is wrong with the line) of each.

    Raises:
        ValueError: a file that is cut off or damaged, or of another form.
    """
    return chain.from_iterable(map(_placed, files))


def _placed(path: Path) -> Iterator[tuple[str, Row | str]]:
    if path.suffix == ".csv":
        return csv_rows(path)
    by_id = rows_by_id(path) if path.suffix == ".json" else None
    return placed_rows(path) if by_id is None else by_id
