"""The word problems of the toy world, made when they are asked for and written as a file.

toy://solved                                            training problems of all sources, with solutions
toy://seeds/gsm8k?num_rows=130&contaminated=12&seed=0   training problems, and so many test problems in other words
toy://test/math?num_rows=150                            the test problems of one source
toy://traces?num_problems=600&num_samples=4&seed=0      graded solutions with code and in words, of problems of all sources
seeds and test with large=1: numbers of 3 to 5 digits, and a `subject`. What an address leaves out is 0.
"""

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from nemo_ext.records.files import atomic_open
from nemo_ext.rows.row import Row, dumps

FETCHED, IS_PATH = True, False
PARAMETERS = {
    "solved": set[str](),
    "seeds": {"num_rows", "contaminated", "seed", "large"},
    "test": {"num_rows", "large"},
    "traces": {"num_problems", "num_samples", "seed"},
}
OF_ALL_SOURCES = {"solved", "traces"}


def files(address: str, split: str | None, made_in: Path) -> list[Path]:
    """One file, below `made_in`.

    Raises:
        ValueError: an address of another form, or a split, which the toy world has none of.
    """
    kind, source, numbers = _parsed(address)
    if split:
        raise ValueError(f"split={split}: {address} has no splits; leave split out")
    given = [f"{name}{number}" for name, number in sorted(numbers.items())]  # two addresses are two files
    path = made_in / "toy" / f"{'_'.join(filter(None, [kind, source, *given]))}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(path) as out:
        out.write(b"".join(dumps(row) + b"\n" for row in _rows(kind, source, numbers)))
    return [path]


def patterns(address: str, split: str | None) -> list[str]:
    return []


def task_of(problem: str) -> str | None:
    """The task that a problem states, in whatever words, as its rows say it: toy://boxes/7/3/4."""
    from nemo_ext.toy.problems import identify

    key = identify(problem)
    return None if key is None else f"toy://{key}"


def _rows(kind: str, source: str, numbers: dict[str, int]) -> list[Row]:
    from nemo_ext.toy.sources import benchmark, seeds, solved
    from nemo_ext.toy.traces import traces

    if kind == "solved":
        return solved()
    if kind == "traces":
        return list(traces(*(numbers.get(name, 0) for name in ("num_problems", "num_samples", "seed"))))
    num_rows, large = numbers.get("num_rows", 0), bool(numbers.get("large", 0))
    if kind == "test":
        return benchmark(source, num_rows, large)
    return seeds(source, num_rows, numbers.get("contaminated", 0), numbers.get("seed", 0), large)


def _parsed(address: str) -> tuple[str, str, dict[str, int]]:
    from nemo_ext.toy.problems import SOURCES

    parts = urlsplit(address)
    kind, source, given = parts.netloc, parts.path.strip("/"), dict(parse_qsl(parts.query, keep_blank_values=True))
    forms = (
        "toy://solved, toy://traces?num_problems=&num_samples=&seed=, "
        "toy://seeds/<source>?num_rows=&contaminated=&seed=&large= or toy://test/<source>?num_rows=&large="
    )
    known = not source if kind in OF_ALL_SOURCES else source in SOURCES
    if kind not in PARAMETERS or not known:
        raise ValueError(f"{address}: it may be {forms}, with a source of {', '.join(SOURCES)}")
    wrong = [name for name, value in given.items() if name not in PARAMETERS[kind] or not value.isdecimal()]
    if wrong:
        raise ValueError(f"{address}: {wrong[0]}={given[wrong[0]]!r}; it may be {forms}, with whole numbers")
    return kind, source, {name: int(value) for name, value in given.items()}
