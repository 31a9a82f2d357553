"""The rows of an evaluation, and the errors for rows that are not of one."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import orjson

from nemo_ext.rows.batches import Batch, batches, parts
from nemo_ext.rows.exact_json import loads
from nemo_ext.rows.row import Row, read_rows
from nemo_ext.rows.usable import group_key

PROBLEM = ("benchmark", "id")
"""What a problem's samples share."""

NEEDED = frozenset({"benchmark", "id", "predicted_answer", "is_correct"})


def problem_batches(files: Sequence[Path]) -> Iterator[Batch]:
    """The files in batches, a problem's samples, which are next to each other, in one."""
    key = partial(group_key, PROBLEM)
    for index, part in enumerate(parts(files, key=key)):
        yield from batches(part, index, key)


def evaluation_rows(batch: Batch) -> list[Row]:
    """The batch's rows.

    Raises:
        ValueError: a line that is no JSON object, or a row without what an evaluation's rows have; says where, and which.
    """
    try:
        rows = [loads(line) for _, lines in batch.pieces() for line in lines.splitlines() if line.strip()]
    except orjson.JSONDecodeError:
        for _ in read_rows(batch.path):  # says in which line
            pass
        raise
    for row in rows:
        if not isinstance(row, dict) or not row.keys() >= NEEDED:
            has = ", ".join(row) if isinstance(row, dict) else repr(row)[:80]
            lacks = ", ".join(sorted(NEEDED - set(row))) if isinstance(row, dict) else "columns"
            raise ValueError(
                f"{batch.path}: a row has no {lacks}, so it is not an evaluation's; it has {has}. Rows from elsewhere, with "
                "generation and expected_answer, become an evaluation by +recipe=rescore"
            )
    return rows


def refuse_apart(place: object, keys: Iterable[tuple[Hashable, Hashable]]) -> None:
    """Raises ValueError where a (benchmark, id) comes twice: each part would count as a problem of its own."""
    seen = set()
    for key in keys:
        if key in seen:
            raise ValueError(
                f"{place}: the samples of {key[0]} {key[1]} lie apart, so they would count as several problems; rescore it, "
                "which brings them together"
            )
        seen.add(key)
