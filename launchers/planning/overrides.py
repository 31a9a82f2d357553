"""Command-line words as Hydra is to read them, and what to say when it cannot.

Hydra's grammar takes `~`, `=`, `,` and letters beyond ASCII for its own, and `1e5` for a number. Values that name files and
folders are texts here, whatever is in them, and so is any other value that its grammar refuses.
"""

import re
import traceback
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

TEXTS = ("data", "input", "second", "checkpoints", "run_name", "run_dir", "publish_dir")
"""Keys whose values are texts, of which `run_name=1e5` is one."""
MERGED = re.compile(r"Error merging override ([^\s=]+)=")
CALL = re.compile(r"\$\{\w+:")
"""A value that a function of resolvers.py makes: each look at it makes another, so that nothing can be put into it."""
SHARED = re.compile(r"\$\{([\w.]+)\}")
"""A value that is what stands in another place: a change of a key of it is one there."""
UNKNOWN_KEY = re.compile(r"Could not (?:override|delete from config\.) '([^'\s]+)'")
READ_BY_NAME = ("sampling", "rule", "sizes", "few_shot")
"""Root mappings without a type, of which each key is read by its name."""
CONFIG_DIR = "--config-dir"
"""Hydra's option for a folder of configs besides conf/; -cd in short."""
MAX_NAME = 200
NAME = re.compile(r"[\w][\w.@%+=-]*(/[\w][\w.@%+=-]*)*")
SETS_NULL = (
    "a word gives keys to a setting that is null, as stages.report.ablation; such a mapping is given in a recipe (a file of "
    "conf/recipe, or of your own), not on the command line"
)


def prepare(words: Sequence[str]) -> list[str]:
    """The words with values quoted where Hydra would read something else, and the scale overlay after the recipe it
    overlays, whatever the order they were typed in."""
    first = (f"{CONFIG_DIR}=", "+recipe=", "+scale=")
    ranked = sorted(words, key=lambda word: next((n for n, start in enumerate(first) if word.startswith(start)), 3))
    return [_quoted(word) for word in ranked]


def joined(words: Sequence[str]) -> list[str]:
    """The words with `--config-dir <folder>` as one of them, so that they can be put in another order."""
    rest, result = list(words), []
    while rest:
        word = rest.pop(0)
        key, equals, folder = word.partition("=")
        if key in (CONFIG_DIR, "-cd") and (equals or rest):
            word = f"{CONFIG_DIR}={folder if equals else rest.pop(0)}"
        result.append(word)
    return result


def _quoted(word: str) -> str:
    key, equals, value = word.partition("=")
    name = key.lstrip("+~")
    if not equals or key.startswith(("-", "~")) or value[:1] in ("'", '"'):
        return word
    structured = value[:1] in ("[", "{") or "${" in value or value in ("null", "")
    if (name not in TEXTS or structured) and (structured or _readable(word)):
        return word
    if value == "~" or value.startswith("~/"):
        value = str(Path(value).expanduser())
    return f"{key}={_as_text(value)}"


def _as_text(value: str) -> str:
    """The value in double quotes, within which Hydra unescapes quotes and the backslashes in front of them."""
    escaped = re.sub(r'(\\*)"', r"\1\1\\" + '"', value)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f'"{escaped}{chr(92) * trailing}"'


def _readable(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def check_name(name: str) -> None:
    """Raises ValueError unless `runs/<name>` is a folder below runs/ that every file system and scheduler takes."""
    if not name or name in ("None", "null"):
        raise ValueError("run_name= is empty (an unset variable of the shell?): give it a name, or leave it out")
    if len(name) > MAX_NAME or not NAME.fullmatch(name):
        shown = name if len(name) <= MAX_NAME else f"{name[:40]}... ({len(name)} characters)"
        raise ValueError(
            f"run_name={shown}: it may have letters, digits and . _ - @ % + = (a / makes folders), must not begin with a "
            f"dot, and has at most {MAX_NAME} characters. Another place for the run is run_dir=<folder>"
        )


def sets_null(error: Exception) -> bool:
    """Whether it is what OmegaConf answers to keys for a typed mapping that is null: an error of its own code."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).parent.name == "omegaconf"


def explain(error: Exception, words: Sequence[str]) -> str:
    """What went wrong with the command line, on one line, with the nearest key where one is misspelt."""
    unknown = UNKNOWN_KEY.search(str(error))
    if unknown is not None and (said := _unknown_key(unknown[1], words)):
        return said
    merged = MERGED.search(str(error))
    if merged is not None and (said := _into_made(merged[1], words)):
        return said
    lines = [str(error)]
    cause = error.__cause__
    if cause is not None and str(cause) not in lines[0]:
        lines.append(f"({str(cause).splitlines()[0]})")
    return " ".join(line.strip() for text in lines for line in text.splitlines() if line.strip())


def _unknown_key(key: str, words: Sequence[str]) -> str | None:
    """Where `key` leaves the config, and what there is; None when the rest of the command line does not compose either."""
    config = _composed_without(key, words)
    if config is None:
        return None
    place: list[str] = []
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, DictConfig) or part not in node:
            break
        place.append(part)
        node = _resolved(config, ".".join(place))
    if ".".join(place) == key:
        return f"{key}: its value has a key that is new there; give that one as +{key}.<key>=<value>"
    if not isinstance(node, DictConfig):
        return f"{key}: {'.'.join(place)} is a single value and has no {key.split('.')[len(place)]}"
    missing, there = key.split(".")[len(place)], [str(name) for name in node]
    of = f"{'.'.join(place)} has no {missing!r}" if place else f"there is no key {missing!r}"
    return f"{key}: {of}; {nearest(missing, there)}"


def _into_made(word: str, words: Sequence[str]) -> str | None:
    """Where the word that does not merge would go into a value that is made; None: nowhere, or more is wrong."""
    key = word.lstrip("+~")
    config = _composed_without(key, words)
    return None if config is None else _made_above(config, key)


def refuse_lost(cfg: DictConfig, words: Sequence[str]) -> None:
    """Raises ValueError for a word that would do something else than it says: it changes a key of a value that a function
    of resolvers.py makes, such as stages.evaluate.prompt.system, and would be lost; or of one that other stages have too,
    such as stages.evaluate.model.name where the model is ${student}, and would change theirs."""
    for word in words:
        key, equals, value = word.lstrip("+~").partition("=")
        if equals and "." in key and not key.startswith("-"):
            said = _made_above(cfg, key) or _shared_above(cfg, key, value)
            if said:
                raise ValueError(said)


def _made_above(config: DictConfig, key: str) -> str | None:
    parts, node = key.split("."), config
    for place, part in enumerate(parts[:-1], 1):
        written = OmegaConf.to_container(node)
        value = written.get(part) if isinstance(written, dict) else None
        if isinstance(value, str) and CALL.match(value):
            made = ".".join(parts[:place])
            return (
                f"{key}: {made} is made by {value}, so a key of it cannot be changed. Change what it is made of, or put it "
                f"in a recipe of your own with {made} written out"
            )
        below = _resolved(node, part)
        if not isinstance(below, DictConfig):
            return None
        node = below
    return None


def _shared_above(config: DictConfig, key: str, value: str) -> str | None:
    parts = key.split(".")
    if parts[0] != "stages" or len(parts) < 4:
        return None
    stage, name, *below = parts[1:]
    stages = OmegaConf.to_container(config.stages)
    assert isinstance(stages, dict), "a mapping of stages"
    there = (stages.get(stage) or {}).get(name)
    target = SHARED.fullmatch(there) if isinstance(there, str) else None
    others = [other for other, keys in stages.items() if other != stage and there in (keys or {}).values()]
    if target is None or not others:
        return None
    return (
        f"{key}: stages.{stage}.{name} is {there}, and so is that of {', '.join(map(str, others))}. "
        f"{'.'.join([target[1], *below])}={value} changes it for all of them; stages.{stage}.{name}={{...}} with all of its "
        "keys gives this stage one of its own"
    )


def _composed_without(key: str, words: Sequence[str]) -> DictConfig | None:
    """The config without the words that set `key` and other keys that there are not; None: there is more wrong."""
    unknown = {key}
    for _ in words:
        try:
            return compose("config", [word for word in words if word.lstrip("+~").partition("=")[0] not in unknown])
        except HydraException as error:
            found = UNKNOWN_KEY.search(str(error))
            if found is None or found[1] in unknown:
                return None
            unknown.add(found[1])
        except OmegaConfBaseException:
            return None
    return None


def _resolved(config: DictConfig, place: str) -> Any:
    """What is there, behind an interpolation such as ${student}, too."""
    try:
        return OmegaConf.select(config, place)
    except OmegaConfBaseException:
        return None


def nearest(missing: str, there: Iterable[str]) -> str:
    """`did you mean ...?`, or what there is where nothing is like it."""
    known = sorted(there)
    near = get_close_matches(missing, known, 3)
    return f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(known)}"


def refuse_unread(cfg: DictConfig, words: Sequence[str], conf: Path) -> None:
    """Raises ValueError for `+sizes.<key>=` and the like that no file of conf/ reads: Hydra adds any key.

    Keys of stages, models, servers and the cluster have types, which plan.py and run.py look at.
    """
    declared = OmegaConf.load(conf / "config.yaml")
    assert isinstance(declared, DictConfig), "config.yaml is a mapping"
    for word in words:
        root, _, rest = word.lstrip("+").partition("=")[0].partition(".")
        name = rest.partition(".")[0]
        if not word.startswith("+") or not name or root not in READ_BY_NAME:
            continue
        known = {str(key) for key in declared[root]} or {str(key) for key in cfg[root]} - {name}
        is_read = any(re.search(rf"\b{root}\.{re.escape(name)}\b", path.read_text()) for path in conf.rglob("*.yaml"))
        if name not in known and not is_read:
            raise ValueError(f"{root}.{rest}: {root} has no {name!r}; {nearest(name, known)}")
