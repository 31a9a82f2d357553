"""The rows of a benchmark: of one file, of a folder as the Hugging Face hub lays it out, or of a data set fetched there."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from nemo_ext.row_files import placed_rows
from nemo_ext.rows import ROW_FILES, Row

HUB = "hf://"
# in this order: a file of the split, parts of it, then both in data/, then in the folder of a configuration
_PATTERNS = ("{split}.*", "{split}-*", "data/{split}.*", "data/{split}-*", "*/{split}.*", "*/{split}-*")


def benchmark_files(name: str, path: str, split: str, hub: str = "") -> list[Path]:
    """The files of the split, in order.

    Raises:
        ValueError: nothing there, or no such split; says what is there, or how to get it.
    """
    found = fetched(name, path, split) if path.startswith(HUB) else Path(path)
    if found.is_file():
        if not found.name.endswith(ROW_FILES):
            raise ValueError(f"benchmark {name}: {found}: expected a file that ends in {', '.join(ROW_FILES)}")
        return [found]
    folder = found.parent if found.name.endswith(ROW_FILES) else found  # a download from the hub has other names in it
    get = f"hf download {hub} --repo-type dataset --local-dir {folder}" if hub else "get it from where it is published"
    if not folder.is_dir():
        raise ValueError(f"benchmark {name}: no such file: {path} (looked from {Path.cwd()}). To have it: {get}")
    return [file for each in split.split("+") for file in _of_split(name, folder, each.strip(), get)]


def _of_split(name: str, folder: Path, split: str, get: str) -> list[Path]:
    for pattern in _PATTERNS:
        files = sorted(file for file in folder.glob(pattern.format(split=split)) if file.name.endswith(ROW_FILES))
        if len({file.parent for file in files}) > 1:
            choices = ", ".join(str(each) for each in sorted({file.parent for file in files}))
            raise ValueError(
                f"benchmark {name}: {folder} has the split {split!r} more than once; give one of {choices}"
            )
        if files:
            return files
    there = sorted({file.name for each in ("*", "*/*") for file in folder.glob(each) if file.name.endswith(ROW_FILES)})
    raise ValueError(
        f"benchmark {name}: {folder} has no files of the split {split!r} ({split}.jsonl, data/{split}-*.parquet); it has "
        f"{', '.join(there[:12]) or 'no file of rows'}. Set split, or path to one of them; or {get}"
    )


def fetched(name: str, path: str, split: str) -> Path:
    """The folder of hf://<owner>/<data set>[@<revision>][/<folder>], fetched where it is not in the hub's cache.

    Raises:
        ValueError: huggingface_hub is not installed, the address has another form, or the hub does not give it.
    """
    owner, _, rest = path.removeprefix(HUB).partition("/")
    dataset, _, folder = rest.partition("/")
    dataset, _, revision = dataset.partition("@")
    if not owner or not dataset:
        raise ValueError(f"benchmark {name}: path={path!r}; it may be hf://<owner>/<data set>[@<revision>][/<folder>]")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise ValueError(f"benchmark {name}: {path} needs huggingface_hub: pip install huggingface_hub") from error
    wanted = [f"*{each.strip()}*" for each in split.split("+")]
    try:
        place = snapshot_download(
            f"{owner}/{dataset}", repo_type="dataset", revision=revision or None, allow_patterns=wanted
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"benchmark {name}: {path} could not be fetched: {first}. Without a network, on a machine that has one: hf "
            f"download {owner}/{dataset} --repo-type dataset --local-dir <folder>, and path=<folder>"
        ) from error
    return Path(place) / folder


def read_benchmark(files: list[Path]) -> Iterator[tuple[str, Row | str]]:
    """(file, line and row number, the row or what is wrong with the line) of each.

    Raises:
        ValueError: a file that is cut off or damaged, or of another form.
    """
    return chain.from_iterable(placed_rows(path) for path in files)
