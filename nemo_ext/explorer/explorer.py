"""Write the page: index.html and the parts that it loads.

    write(Path("run/explore"), ["run"], Options(title="my run"))

Folder: index.html; parts/page/ (script, style, KaTeX), parts/catalog.js (models, stages, counts), parts/problems/index/
(what the list shows of every problem), parts/problems/<model>/ (its samples), parts/rows/<stage>/<reason>/.
"""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_ext.explorer import problem_rows, row_sample
from nemo_ext.explorer.page import write_index, write_page
from nemo_ext.explorer.parts import PartFolder, PartSeries, Written, cut, entry, part_folder
from nemo_ext.explorer.sources import Source, find
from nemo_ext.records.progress import Progress
from nemo_ext.rows.exact_json import dumps
from nemo_ext.rows.row import parse_line

PARTS, BUILDING, INDEX = "parts", ".parts.building", "index.html"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What of a value is shown: rows of a stage that are sampled, characters of one text."""

    title: str
    kept_rows: int
    dropped_rows: int
    max_text_chars: int
    seed: int


@dataclass
class Explored:
    """What the page holds."""

    inputs: list[Path]
    figures: dict[str, int]


@dataclass
class _Problems:
    """The list that is in memory while evaluations are read: short texts and numbers, no generations."""

    numbers: dict[tuple[str, str, int], int] = field(default_factory=dict)
    rows: list[list[Any]] = field(default_factory=list)
    samples: int = 0


def write(folder: Path, inputs: list[str], options: Options) -> Explored:
    """index.html appears last, and is gone while parts are exchanged: a killed run leaves a whole page or none.

    Raises:
        ValueError: inputs that aren't there or hold no rows.
    """
    sources = find(inputs, folder)
    evaluations = [each for each in sources if each.is_evaluation]
    stages = [each for each in sources if not each.is_evaluation]
    building = folder / BUILDING
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    progress = Progress(folder, "sources")
    with part_folder(building) as parts:
        found = _Problems()
        models = []
        for number, each in enumerate(evaluations):
            models.append(_evaluation(parts, number, each, found, options))
            progress.update(number + 1, len(sources), samples=found.samples)
        shown = []
        for number, each in enumerate(stages):
            shown.append(_stage(parts, number, each, options))
            progress.update(len(evaluations) + number + 1, len(sources))
        catalog = {
            "title": options.title,
            "models": _named_apart(models, evaluations),
            "problems": len(found.rows),
            "index": _index(parts, found, len(evaluations)),
            "stages": shown,
        }
        parts.write("catalog", [dumps(cut(catalog, 10_000))])
        written = parts.finish()
    write_page(building / "page")
    _exchange(folder, building)
    write_index(folder / INDEX, options.title)
    return Explored([path for each in sources for path in each.inputs], _figures(found, models, shown, written))


def _figures(found: _Problems, models: list[Any], stages: list[Any], written: Written) -> dict[str, int]:
    return {
        "models": len(models),
        "problems": len(found.rows),
        "samples": found.samples,
        "stages": len(stages),
        "files": written.files,
        "bytes": written.bytes,
        "largest_file_bytes": written.largest,
    }


def _exchange(folder: Path, building: Path) -> None:
    (folder / INDEX).unlink(missing_ok=True)
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    os.replace(building, folder / PARTS)


def _evaluation(parts: PartFolder, number: int, source: Source, found: _Problems, options: Options) -> dict[str, Any]:
    """Write the samples of one evaluation and add it to the list."""
    series = PartSeries(parts, f"problems/{number}")
    graders: set[str] = set()
    occurrences: dict[tuple[str, str], int] = {}
    for rows in problem_rows.problems(source.files):
        listed = problem_rows.listed(rows)
        benchmark, problem_id = listed[:2]
        occurrence = occurrences[benchmark, problem_id] = occurrences.get((benchmark, problem_id), -1) + 1
        key = (benchmark, problem_id, occurrence)
        if key not in found.numbers:
            found.numbers[key] = len(found.rows)
            found.rows.append([*listed, occurrence])
        place = found.numbers[key]
        voted = problem_rows.votes(rows)
        first, last = _write_samples(series, place, rows, voted, options.max_text_chars)
        graders.update(name for row in rows for name in row.get("verdicts") or {})
        found.rows[place] += [None] * (len(listed) + 1 + number - len(found.rows[place]))
        found.rows[place].append([*problem_rows.summary(rows, voted), first, last])
        found.samples += len(rows)
    series.flush()
    scores = source.scores or {}
    kept = ("step", "contract", "num_samples", "benchmarks")
    name = str(scores.get("model") or source.label)
    return {"model": name, "stage": source.label, "graders": sorted(graders), **{key: scores.get(key) for key in kept}}


def _write_samples(
    series: PartSeries, place: int, rows: list[Any], voted: problem_rows.Votes, max_chars: int
) -> tuple[int, int]:
    """The first and the last part that the samples lie in. Entries: [problem, what samples share], [problem, sample]."""
    fields = problem_rows.constant_fields(rows)
    first = last = series.add(entry([place, fields], max_chars))
    for sample in problem_rows.samples(rows, voted, fields):
        last = series.add(entry([place, sample], max_chars))
    return first, last


def _index(parts: PartFolder, found: _Problems, models: int) -> int:
    """How many parts the list has."""
    series = PartSeries(parts, "problems/index")
    width = len(problem_rows.PROBLEM_KEYS) + 1 + models
    for row in found.rows:
        series.add(dumps(row + [None] * (width - len(row))))
    series.flush()
    return series.count


def _named_apart(models: list[dict[str, Any]], evaluations: list[Source]) -> list[dict[str, Any]]:
    """One model evaluated twice is two columns, named with the stage."""
    names = [each["model"] for each in models]
    return [
        each | {"label": f"{each['model']} ({source.label})" if names.count(each["model"]) > 1 else each["model"]}
        for each, source in zip(models, evaluations, strict=True)
    ]


def _stage(parts: PartFolder, number: int, source: Source, options: Options) -> dict[str, Any]:
    """Write a sample of one stage's rows."""
    seed = f"{options.seed}/{source.label}"
    sampled = row_sample.sample_rows(source.files, source.dropped_files, options.kept_rows, options.dropped_rows, seed)
    groups = []
    for place, (reason, reservoir) in enumerate(sampled.items()):
        series = PartSeries(parts, f"rows/{number}/{place}")
        shown = 0
        for row in filter(None, map(parse_line, reservoir.lines)):
            series.add(entry(row, options.max_text_chars))
            shown += 1
        series.flush()
        groups.append({"reason": reason, "rows": reservoir.seen, "shown": shown, "parts": series.count})
    facts = {"rows_in": source.rows("rows_in"), "rows_out": source.rows("rows_out")}
    return {"stage": source.label, "uses": source.uses, "seconds": source.seconds, **facts, "groups": groups}
