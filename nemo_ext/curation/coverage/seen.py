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
    """The stage is the one that asked: some of the rows that it dropped were never asked about, and are no samples."""
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
    """What gathers the rows of one batch."""

    def read(rows: list[Row]) -> dict[Key, Seen]:
        found: dict[Key, Seen] = {}
        for row in rows:
            key = _key(row, look)
            if key not in found:
                found[key] = Seen(problem=text_hash(row.get("problem")) if look.problems else b"")
            if look.asked and not _was_asked(row):
                found[key].counts[NOT_ASKED, key.reason] += 1
            else:
                _see(row, found[key], look)
        return found

    return read


def _add(key: Key, into: Seen, more: Seen) -> None:
    if twice := into.samples & more.samples:
        raise _twice(key.id, lowest(twice))
    if into.problem != more.problem:
        raise _two_texts(key.id)
    into.samples |= more.samples
    into.correct |= more.correct
    into.counts.update(more.counts)
    into.solutions += more.solutions


def lowest(samples: int) -> int:
    """The first sample_index of the set."""
    return (samples & -samples).bit_length() - 1


def _twice(problem: Any, sample: int) -> ValueError:
    return ValueError(f"sample {sample} of problem {problem!r} occurs twice")


def _two_texts(problem: Any) -> ValueError:
    return ValueError(f"problem {problem!r} has two different texts, so that its samples cannot be told apart")


def _key(row: Row, look: Look) -> Key:
    strategy = row.get("strategy")
    if strategy is None and (look.asked or not look.dropped):
        strategy = UNNAMED
    if row.get("id") is None and not look.asked:
        raise ValueError(f"a row has no id, so that nothing says which problem it is of: {sorted(row)}")
    reason = str(row.get("reason") or "no_reason") if look.dropped else ""
    return Key(row.get("id"), None if strategy is None else str(strategy), reason)


def _was_asked(row: Row) -> bool:
    """Whether a dropped row is a sample whose request failed. A row that was not asked about may have a sample_index, too:
    that of an earlier sample."""
    return row.get("id") is not None and "sample_index" in row and "error" in row


def _see(row: Row, seen: Seen, look: Look) -> None:
    index = _index(row)
    if seen.samples >> index & 1:
        raise _twice(row["id"], index)
    if look.problems and seen.problem != text_hash(row.get("problem")):
        raise _two_texts(row["id"])
    seen.samples |= 1 << index
    if look.traces:
        _see_trace(row, seen.counts)
    if look.correct and row.get("is_correct") is True:
        seen.correct |= 1 << index
        seen.solutions += row_key(row)
        seen.counts[CORRECT, code_blocks(row)] += 1
    if look.kept:
        seen.counts[KEPT, code_blocks(row)] += 1


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


def _see_trace(row: Row, counts: Counter[tuple[str, str]]) -> None:
    """Count why the row's trace ended, how many of its blocks ran and in which ways they failed; a sample may have none."""
    trace = row.get("trace")
    if trace is None:
        return
    try:
        counts["ended", str(trace["ended"])] += 1
        counts["executions", ""] += trace["executions"]
        for name, number in trace["errors"].items():
            counts["errors", name] += number
    except (TypeError, KeyError, AttributeError):
        raise ValueError(
            f"sample {row['sample_index']} of problem {row['id']!r} has trace={trace!r}; a trace is "
            '{"executions": 2, "errors": {"timeout": 1}, "ended": "answer"}'
        ) from None
