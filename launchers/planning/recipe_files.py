"""Find recipes by name, in conf/recipe and its folders, and list them."""

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from launchers.planning import overrides

RECIPES = Path(__file__).resolve().parents[2] / "conf" / "recipe"
TITLES = {".": "Systems", "ablation": "Ablations", "one_stage": "One stage, on a file of your own"}
"""Folder of conf/recipe -> what its recipes are; others are called by their folder."""
WITHOUT_TERMINAL = 120
"""Columns of the list where it goes to a file or a pipe, and COLUMNS is not set."""
WORD, TINY = "+recipe=", "+scale=tiny"


def named(words: Sequence[str]) -> list[str]:
    """The words with the recipe as Hydra finds it, `+recipe=grade` being +recipe=one_stage/grade, and at +scale=tiny with
    what the recipe adds to it.

    Raises:
        ValueError: no such recipe, or several of that name.
    """
    folders = [RECIPES, *(folder / "recipe" for folder in _search_path(words))]
    known = [name for folder in folders for name in _files(folder)]
    found = [f"{WORD}{find(word.removeprefix(WORD), known)}" if word.startswith(WORD) else word for word in words]
    return [*_tiny_words(found, folders), *found] if TINY in words else found


def _tiny_words(words: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The recipe's `tiny_words`, but for those whose key the command line has itself."""
    recipes = [word.removeprefix(WORD) for word in words if word.startswith(WORD)]
    files = [folder / f"{name}.yaml" for name in recipes for folder in folders]
    written = [OmegaConf.load(file) for file in files if file.is_file()]
    tiny = [str(word) for each in written if isinstance(each, DictConfig) for word in each.get("tiny_words") or []]
    given = {word.partition("=")[0] for word in words}
    return [word for word in tiny if word.partition("=")[0] not in given]


def _files(folder: Path) -> Iterator[str]:
    """Names as Hydra has them, such as one_stage/grade."""
    yield from sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def _search_path(words: Sequence[str]) -> list[Path]:
    """Folders besides conf/ that the command line adds: `--config-dir=<folder>`, 'hydra.searchpath=[file://<folder>]'."""
    given = [word.partition("=")[2] for word in words if word.startswith(f"{overrides.CONFIG_DIR}=")]
    listed = [url for word in words if "hydra.searchpath=" in word for url in re.findall(r"file://([^,\]'\"]+)", word)]
    return [Path(folder) for folder in (*given, *listed)]


def find(name: str, known: Sequence[str]) -> str:
    """The one of `known` that is called so, by its whole name or the last part of it.

    Raises:
        ValueError: none is, with the nearest; or several are.
    """
    matches = [each for each in known if name in (each, _last(each))]
    if len(matches) == 1 or ("/" in name and name in matches):
        return name if name in matches else matches[0]
    if matches:
        raise ValueError(
            f"{WORD}{name}: there are {' and '.join(matches)}. Say which with its folder, or rename one of the files"
        )
    nearest = overrides.nearest(name, {_last(each) for each in known} | ({*known} if "/" in name else set()))
    raise ValueError(f"{WORD}{name}: no recipe of that name; {nearest}")


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def short_name(name: str) -> str:
    """What runs of a recipe are called: its name without the folder, unless another folder has one of that name."""
    last = _last(name)
    return last if [_last(each) for each in _files(RECIPES)].count(last) < 2 else name


def short_names() -> list[str]:
    return sorted(short_name(name) for name in _files(RECIPES))


def listed() -> str:
    """A line for each recipe, by folder: its name and the first sentence of its file, cut to the terminal's width."""
    width = shutil.get_terminal_size((WITHOUT_TERMINAL, 24)).columns
    text = "Recipes: python launchers/run.py +recipe=<name> (with +scale=tiny to run it here on the CPU)"
    lines = textwrap.wrap(text, max(width, 20))
    names = list(_files(RECIPES))
    column = max(len(short_name(name)) for name in names) + 4
    for folder in sorted({Path(name).parent.as_posix() for name in names}, key=_order):
        lines += ["", TITLES.get(folder, folder)]
        for name in names:
            if Path(name).parent.as_posix() == folder:
                about = first_sentence((RECIPES / f"{name}.yaml").read_text())
                shown = textwrap.shorten(about, max(width - column, 20), placeholder=" ...", break_on_hyphens=False)
                lines.append(f"  {short_name(name)}".ljust(column) + shown)
    return "\n".join(lines)


def _order(folder: str) -> tuple[int, str]:
    """Systems first, then folders of further systems, then the others."""
    place = list(TITLES).index(folder) if folder in TITLES else 0
    return place, folder


def first_sentence(text: str) -> str:
    """The first sentence of a recipe's opening comment."""
    comment = []
    for line in text.splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("# ") or line.startswith("#  "):
            break
        comment.append(line.removeprefix("# "))
    return re.split(r"(?<=\.)\s", " ".join(comment), maxsplit=1)[0]
