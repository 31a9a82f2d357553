"""Samples that a stage's files hold, a bit each, with what is counted of them: one pass, in which no row is kept.

gather(files, Look(traces=True))
->  {Key("77ab...", "masked", ""): Seen(samples=0b1101, counts={("ended", "answer"): 3}, ...), ...}
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nemo_ext.curation.code_blocks import blocks
from nemo_ext.curation.duplicates.exact import row_key
from nemo_ext.rows.passes import scan_rows
from nemo_ext.rows.row import Row, written_solution

UNNAMED = "(no strategy)"
"""The strategy of samples that say none: their stage had one way to ask each row."""
ZERO, ONE, MORE, MALFORMED = "0", "1", "2+", "malformed"
BLOCKS = (ZERO, ONE, MORE, MALFORMED)
"""Blocks of code in a solution; marks that do not pair up are no blocks."""
MAX_INDEX = 1 << 20
NOT_ASKED, CORRECT, KEPT = "not_asked", "correct", "kept"
"""Kinds of counts: problems that were dropped before they were asked about; blocks of code, as BLOCKS has them, in the
solutions that are correct, and in those that are kept."""


class Key(NamedTuple):
    """Samples of one problem that shared a fate."""

    id: Any
    """None: lines that could not be read as rows."""
    strategy: str | None
    """None: the row does not say, as one of which a later stage wrote only the id when it dropped it."""
    reason: str
    """Why they were dropped; empty: they were kept."""


@dataclass(slots=True)
class Seen:
    samples: int = 0
    """Bit n: the sample with sample_index n."""
    correct: int = 0
    """The same of those that were graded as correct."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    problem: bytes = b""
    """A hash of the problem's text, where it was looked at."""
    solutions: bytes = b""
    """16 bytes of each correct solution: equal ones are the same solution of the same problem, white space apart."""


@dataclass(frozen=True)
class Look:
    """What a pass looks at besides ids."""

    dropped: bool = False
    """The rows are those that a stage dropped, each with its reason."""
    asked: bool = False
    """Rows without a sample_index were dropped before they were asked about, under their strategy."""
    problems: bool = False
    traces: bool = False
    correct: bool = False
    kept: bool = False
    """These rows are kept at the end: the blocks of code in each are counted."""


def gather(files: Sequence[Path], look: Look, workers: int | None = None) -> dict[Key, Seen]:
    """What the rows of all files say, by problem, strategy and reason: some 200 bytes each.

    Raises:
        ValueError: a sample that occurs twice, has no whole number as its sample_index, or another problem than its id.
    """
    found: dict[Key, Seen] = {}
    for batch in scan_rows(files, partial(reader, look), workers=workers):
        for key, seen in batch.items():
            if key in found:
                _add(key, found[key], seen)
            else:
                found[key] = seen
    return found


def reader(look: Look) -> Callable[[list[Row]], dict[Key, Seen]]:
    def read(rows: list[Row]) -> dict[Key, Seen]:
        found: dict[Key, Seen] = {}
        for row in rows:
            key = _key(row, look)
            seen = _seen(row, key, look)
            if key in found:
                _add(key, found[key], seen)
            else:
                found[key] = seen
        return found

    return read


def _add(key: Key, into: Seen, more: Seen) -> None:
    if twice := into.samples & more.samples:
        raise ValueError(f"sample {lowest(twice)} of problem {key.id!r} occurs twice")
    if into.problem != more.problem:
        raise ValueError(f"problem {key.id!r} has two different texts, so that its samples cannot be told apart")
    into.samples |= more.samples
    into.correct |= more.correct
    into.counts.update(more.counts)
    into.solutions += more.solutions


def lowest(samples: int) -> int:
    """The first sample_index of the set."""
    return (samples & -samples).bit_length() - 1


def _key(row: Row, look: Look) -> Key:
    strategy = row.get("strategy")
    if strategy is None and (look.asked or not look.dropped):
        strategy = UNNAMED
    return Key(row.get("id"), strategy, str(row.get("reason") or "no_reason") if look.dropped else "")


def _seen(row: Row, key: Key, look: Look) -> Seen:
    if look.asked and ("sample_index" not in row or key.id is None):
        return Seen(counts=Counter({(NOT_ASKED, key.reason): 1}))
    bit = 1 << _index(row)
    seen = Seen(samples=bit)
    if look.problems:
        seen.problem = text_hash(row.get("problem"))
    if look.traces:
        seen.counts.update(_trace(row))
    if look.correct and row.get("is_correct") is True:
        seen.correct, seen.solutions = bit, row_key(row)
        seen.counts[CORRECT, code_blocks(row)] += 1
    if look.kept:
        seen.counts[KEPT, code_blocks(row)] += 1
    return seen


def _index(row: Row) -> int:
    index = row.get("sample_index")
    if type(index) is not int or not 0 <= index < MAX_INDEX:
        raise ValueError(
            f"a row of problem {row.get('id')!r} has sample_index={index!r}; it says which sample of its problem a row is, "
            f"from 0 to {MAX_INDEX - 1:,}"
        )
    return index


def text_hash(problem: Any) -> bytes:
    return hashlib.blake2b(str(problem).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def code_blocks(row: Row) -> str:
    """How many blocks of code the row's solution has, as one of BLOCKS."""
    found = blocks(written_solution(row) or "")
    if found is None:
        return MALFORMED
    number = sum(block.kind == "code" for block in found)
    return MORE if number > 1 else str(number)


def _trace(row: Row) -> Counter[tuple[str, str]]:
    """Why the row's trace ended, how many of its blocks ran and in which ways they failed; nothing of a sample without."""
    trace = row.get("trace")
    if trace is None:
        return Counter()
    try:
        errors = {("errors", str(name)): int(count) for name, count in trace["errors"].items()}
        return Counter({("ended", str(trace["ended"])): 1, ("executions", ""): int(trace["executions"]), **errors})
    except (TypeError, KeyError, AttributeError, ValueError):
        raise ValueError(
            f"sample {row['sample_index']} of problem {row.get('id')!r} has trace={trace!r}; a trace is "
            '{"executions": 2, "errors": {"timeout": 1}, "ended": "answer"}'
        ) from None
