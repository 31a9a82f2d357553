"""Find what there is to explore: the finished evaluations of some folders, and the stages that left rows."""

import glob
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_ext.explorer.problem_rows import is_sample
from nemo_ext.records.manifest import DONE, MANIFEST, SET_ASIDE
from nemo_ext.rows.row import ROW_FILES, parse_line

SCORES = "scores.json"
_SHARD = re.compile(r"shard_\d+")


@dataclass
class Source:
    """A stage, or one variant of it, with all its shards."""

    label: str
    place: Path
    """Its folder, or its file of rows."""
    folders: list[Path]
    files: list[Path]
    """Rows it kept."""
    dropped_files: list[Path]
    manifests: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, Any] | None = None
    """scores.json, of an evaluation."""

    @property
    def is_evaluation(self) -> bool:
        """It has scores, and its rows are samples of problems."""
        if self.scores is None or "benchmarks" not in self.scores:
            return False
        with self.files[0].open("rb") as handle:
            first = parse_line(handle.readline())
        return first is None or is_sample(first)

    @property
    def uses(self) -> str:
        return self.manifests[0]["uses"] if self.manifests else ""

    @property
    def seconds(self) -> float:
        return sum(each["seconds"] for each in self.manifests)

    def rows(self, key: str) -> int | None:
        """`rows_in` or `rows_out` of all shards; None where the manifests don't say."""
        values = [each[key] for each in self.manifests]
        return sum(values) if values and None not in values else None

    @property
    def dropped(self) -> dict[str, int]:
        total: Counter[str] = Counter()
        for each in self.manifests:
            total.update(each["dropped"])
        return dict(total)

    @property
    def inputs(self) -> list[Path]:
        """Files whose change makes the page out of date: a manifest knows the hash of all that its stage wrote."""
        named = [folder / name for folder in self.folders for name in (MANIFEST, SCORES)]
        return [path for path in named if path.is_file()] if self.manifests else self.files


def find(inputs: Iterable[str], own: Path) -> list[Source]:
    """Every source under `inputs`, in the order in which stages finished, without `own`, the folder that is written to.

    An input is a run's folder, a stage's, one task's, a folder or file of rows, or a pattern of such.

    Raises:
        ValueError: an input that isn't there, or holds nothing that can be shown.
    """
    found: list[Source] = []
    seen: set[Path] = set()
    for place in _places(inputs):
        sources = [each for each in _sources_in(place) if own.resolve() not in {f.resolve() for f in each.folders}]
        if not sources:
            raise ValueError(
                f"{place} has no finished stage with rows, nor rows of its own. Give a run's folder, a stage's, or a file "
                f"of rows ({', '.join(ROW_FILES[:1])})"
            )
        new = [each for each in sources if not seen & set(each.files)]
        found += new
        seen.update(file for each in new for file in each.files)
    return _with_labels_apart(found)


def _places(inputs: Iterable[str]) -> Iterator[Path]:
    for given in inputs:
        if Path(given).exists():
            yield Path(given)
            continue
        matching = sorted(glob.glob(given)) if glob.has_magic(given) else []
        if not matching:
            raise ValueError(f"nothing to explore: {given} does not exist (looked from {Path.cwd()})")
        yield from (Path(name) for name in matching)


def _sources_in(place: Path) -> list[Source]:
    if place.is_file():
        return [_loose(place, [place])] if place.name.endswith(".jsonl") else []
    tasks = _finished(place)
    if not tasks:
        files = sorted(place.glob("output*.jsonl"))
        return [_loose(place, files)] if files else []
    groups: dict[Path, list[Path]] = {}
    for task in tasks:
        groups.setdefault(task.parent if _SHARD.fullmatch(task.name) else task, []).append(task)
    sources = [_source(_label(group, place), group, sorted(folders)) for group, folders in groups.items()]
    return [each for each in sources if each.files]


def _label(group: Path, place: Path) -> str:
    return str(group.relative_to(place)) if group != place else group.resolve().name


def _finished(place: Path) -> list[Path]:
    """Folders of finished tasks, in the order they finished; results set aside by redo=true are not among them."""
    done = [path.parent for pattern in (DONE, f"*/{DONE}", f"*/*/{DONE}") for path in place.glob(pattern)]
    current = [each for each in done if not SET_ASIDE.search(str(each.relative_to(place)))]
    return sorted(current, key=lambda each: ((each / DONE).stat().st_mtime_ns, str(each)))


def _source(label: str, place: Path, folders: list[Path]) -> Source:
    files, dropped = (
        [f for each in folders for f in sorted(each.glob(p))] for p in ("output*.jsonl", "dropped*.jsonl")
    )
    manifests = [json.loads((each / MANIFEST).read_text()) for each in folders if (each / MANIFEST).is_file()]
    return Source(label, place, folders, files, dropped, manifests, _scores(folders))


def _loose(place: Path, files: list[Path]) -> Source:
    """Rows that no stage here wrote."""
    folder = place if place.is_dir() else place.parent
    dropped = sorted(folder.glob("dropped*.jsonl")) if place.is_dir() else []
    label = place.resolve().name.removesuffix(".jsonl")
    return Source(label, place, [folder], files, dropped, scores=_scores([folder]) if place.is_dir() else None)


def _scores(folders: list[Path]) -> dict[str, Any] | None:
    for folder in folders:
        if (folder / SCORES).is_file():
            try:
                loaded = json.loads((folder / SCORES).read_text())
            except json.JSONDecodeError as error:
                raise ValueError(f"{folder / SCORES} is not JSON ({error}); was it changed by hand?") from error
            if isinstance(loaded, dict):
                return loaded
    return None


def _with_labels_apart(sources: list[Source]) -> list[Source]:
    """Two runs may both have a `filter`: those are told apart by as many of the folders above as it takes."""
    deepest = max((len(each.place.resolve().parts) for each in sources), default=0)
    for _ in range(deepest):
        often = Counter(each.label for each in sources)
        for each in sources:
            if often[each.label] > 1:
                each.label = "/".join(each.place.resolve().parts[-each.label.count("/") - 2 :])
    return sources
