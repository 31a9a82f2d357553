"""Data sets of the Hugging Face hub: hf://<owner>/<data set>[@<revision>][/<folder>]."""

from pathlib import Path

from nemo_ext.rows.split_files import split_files

FETCHED, IS_PATH = True, False
HUB = "hf://"


def files(address: str, split: str | None, made_in: Path) -> list[Path]:
    """The split's files, fetched where they are not in the hub's cache; raises ValueError."""
    if not split:
        raise ValueError(f"{address}: which split is meant? Say split=train, or several as split=train+test")
    return split_files(address, fetched(address, split), split)


def patterns(address: str, split: str | None) -> list[str]:
    """None: the hub's files have a revision."""
    return []


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
