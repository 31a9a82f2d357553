"""Where rows are: a file, a pattern, a stage's folder, a folder as the Hugging Face hub lays it out, or the hub itself.

data_files("hf://nvidia/OpenMathInstruct-2", "train")     # .../data/train-00000-of-00032.parquet, ...
data_files("openmathinstruct2", "train_1M")
data_files("data/train-*.parquet", None)
"""

import glob
from pathlib import Path

from nemo_ext.rows.row import ROW_FILES, input_files, input_patterns

HUB = "hf://"
# in this order: a file of the split, parts of it, then both in data/, then in the folder of a configuration
_PATTERNS = ("{split}.*", "{split}-*", "data/{split}.*", "data/{split}-*", "*/{split}.*", "*/{split}-*")


def data_files(source: str, split: str | None) -> list[Path]:
    """The row files, in order; `split`: which of a folder's or the hub's, several as train+test.

    Raises:
        ValueError: nothing there, no such split, or several splits and none is named.
    """
    if source.startswith(HUB):
        if not split:
            raise ValueError(f"{source}: which split is meant? Say split=train, or several as split=train+test")
        return split_files(source, fetched(source, split), split)
    if not split:
        return input_files(source)
    if not Path(source).is_dir():
        raise ValueError(
            f"split={split} says which files of a folder are meant, and {source} is no folder (looked from {Path.cwd()})"
        )
    return split_files(source, Path(source), split)


def data_patterns(source: str, split: str | None) -> list[str]:
    """Patterns of the files that would be among `data_files`, those included that are not there yet; none of the hub's,
    which have a revision."""
    if source.startswith(HUB):
        return []
    if not split:
        return input_patterns(source)
    place, found = glob.escape(source), list[str]()
    for each in split.split("+"):
        for pattern in _PATTERNS:
            stem = pattern.format(split=glob.escape(each.strip())).removesuffix(".*")
            found += [f"{place}/{stem}{ending}" for ending in ROW_FILES]
            if any(glob.glob(one) for one in found[-len(ROW_FILES) :]):
                break
    return found


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


def fetched(path: str, split: str, what: str = "") -> Path:
    """The folder of hf://<owner>/<data set>[@<revision>][/<folder>], fetched where it is not in the hub's cache.

    Raises:
        ValueError: huggingface_hub is not installed, the address has another form, or the hub does not give it.
    """
    owner, _, rest = path.removeprefix(HUB).partition("/")
    dataset, _, folder = rest.partition("/")
    dataset, _, revision = dataset.partition("@")
    if not owner or not dataset:
        raise ValueError(f"{what}path={path!r}; it may be hf://<owner>/<data set>[@<revision>][/<folder>]")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise ValueError(f"{what}{path} needs huggingface_hub: pip install huggingface_hub") from error
    # train alone is also the beginning of train_1M
    wanted = [f"*{each.strip()}{end}" for each in split.split("+") for end in (".*", "-*")]
    try:
        place = snapshot_download(
            f"{owner}/{dataset}", repo_type="dataset", revision=revision or None, allow_patterns=wanted
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{what}{path} could not be fetched: {first}. Without a network, on a machine that has one: hf "
            f"download {owner}/{dataset} --repo-type dataset --local-dir <folder>, and path=<folder>"
        ) from error
    return Path(place) / folder
