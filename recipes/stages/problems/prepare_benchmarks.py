"""Bring the test problems of every benchmark to one shape, and check that they are what they should be.

In:  per benchmark a .jsonl, .jsonl.zst, .json or .parquet file, a folder of them, hf://<data set>, or `toy`
Out: {"id": "0", "benchmark": "amc23", "problem": "Cities $A$ and $B$ ...", "expected_answer": "27", ...}; level (a number),
     subject and source where the benchmark has them. Nothing is dropped: a row that cannot be used is an error.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo_ext.problems.benchmark import UNDERSTOOD, Benchmark, check_settings, content_hash, problem_of
from nemo_ext.problems.benchmark_files import benchmark_files, read_benchmark
from nemo_ext.records.manifest import Facts
from nemo_ext.rows.outside.columns import BadRow
from nemo_ext.rows.row import Row, RowWriter, require_rows
from nemo_ext.rows.sources import comes_meanwhile
from recipes.stage import Stage
from recipes.work import Writing

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Config(Stage):
    benchmarks: dict[str, Benchmark] = field(default_factory=dict)
    require_answers: bool = True
    """false: a problem without an answer, one to prove say, gets expected_answer null. Enough to look for its copies; no
    model can be evaluated on it."""


def check(cfg: Config) -> None:
    for name, settings in cfg.benchmarks.items():
        check_settings(name, settings)


def work(cfg: Config) -> Writing:
    counts = [benchmark.num_rows for benchmark in cfg.benchmarks.values()]
    return Writing(None if None in counts else sum(count or 0 for count in counts))


def run(cfg: Config) -> Facts:
    folder, files, figures = Path(cfg.output_dir), list[Path](), dict[str, Any]()
    with RowWriter(folder) as out:
        for name, settings in cfg.benchmarks.items():
            own = benchmark_files(name, settings.path, settings.split, folder, settings.hub, settings.source)
            problems = list(_problems(name, settings, own, cfg.require_answers))
            figures |= _checked(name, settings, problems)
            for row in problems:
                out.keep(row)
            files += own
        require_rows(out.kept, cfg.name, out.dropped)
    return Facts(
        inputs=list(dict.fromkeys(files)),
        inputs_came_meanwhile=any(comes_meanwhile(settings.path) for settings in cfg.benchmarks.values()),
        outputs=[folder / "output.jsonl"],
        rows_in=out.total,
        rows_out=out.kept,
        figures=figures,
    )


def _checked(name: str, settings: Benchmark, problems: list[Row]) -> dict[str, str]:
    """Raises ValueError unless they are as many, and the ones, that the benchmark says."""
    if not problems:
        why = f"none is kept by keep={dict(settings.keep)}" if settings.keep else "the file is empty"
        raise ValueError(f"benchmark {name}: {settings.path} has no problems: {why}")
    if settings.num_rows is not None and len(problems) != settings.num_rows:
        raise ValueError(
            f"benchmark {name}: {settings.path} has {len(problems)} problems, but conf/benchmark says "
            f"{settings.num_rows}{_named('num_rows', len(problems), settings)}. Scores on another set could not be compared."
        )
    found = content_hash(problems)
    whose = _named("content_hash", found, settings)
    if settings.content_hash is None:
        log.warning(
            "benchmark %s: not checked against a known hash; this one has content_hash: %s%s", name, found, whose
        )
    elif found != settings.content_hash:
        raise ValueError(
            f"benchmark {name}: the problems and answers of {settings.path} hash to {found}, but conf/benchmark says "
            f"{settings.content_hash}: it is another version or split{whose}. Scores on it could not be compared; to "
            "use it all the same, give it a name and a file of its own in conf/benchmark"
        )
    return {f"{name}.content_hash": found}


def _named(key: str, found: Any, settings: Benchmark) -> str:
    """Which version of the benchmark has what was found."""
    names = [other for other, version in settings.versions.items() if version[key] == found]
    return f", and it is what {' or '.join(names)} has: benchmarks=[{names[0]}]" if names else ""


def _problems(name: str, settings: Benchmark, files: list[Path], require_answers: bool) -> Iterator[Row]:
    """A benchmark is taken whole: a bad line is an error, not a drop."""
    check_settings(name, settings)
    places: dict[str, str] = {}
    for place, raw in read_benchmark(files):
        if isinstance(raw, str):
            raise ValueError(f"benchmark {name}: {place}: {raw}")
        try:
            row = problem_of(raw, name, settings, require_answers)
        except BadRow as error:
            raise ValueError(f"benchmark {name}: {place}: {error}: {_lacks(raw, str(error))}") from error
        if row is not None:
            yield row | {"id": _unique(name, settings, row, raw, place, places)}


def _unique(name: str, settings: Benchmark, row: Row, raw: Row, place: str, places: dict[str, str]) -> str:
    """The row's id; a problem that a file without ids has twice gets another the second time.

    Raises ValueError for an id that the file gives twice: answers could not be told apart.
    """
    given, count = str(row["id"]), 1
    if given in places and str(raw.get(settings.columns.get("id", "id"))) == given:
        raise ValueError(
            f"benchmark {name}: {place}: the id {given!r} is also that of {places[given]}. Make them different, or take no "
            "ids from the file: columns: {id: null}"
        )
    unique = given
    while unique in places:
        count += 1
        unique = f"{given}-{count}"
    places[unique] = place
    return unique


def _lacks(raw: Row, what: str) -> str:
    without = ". Decontamination needs no answers: require_answers=false" if what == "no_answer" else ""
    return f"the row has the columns {', '.join(raw) or '(none)'}; understood are {UNDERSTOOD}{without}"
