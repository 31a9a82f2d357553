"""Forms in which benchmarks are published besides those of rows.outside.read: CSV, and one JSON object of rows by id.

question,final_answer,section,source              -> {"question": "...", "final_answer": "-21", ...}
{"19248": {"question": "...", "answer": "7"}}     -> {"id": "19248", "question": "...", "answer": "7"}
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_ext.rows.outside.read import MAX_ARRAY_BYTES
from nemo_ext.rows.row import Row

_OBJECT_OF_OBJECTS = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"[^"\\]*"\s*:\s*\{')


def csv_rows(path: Path) -> Iterator[tuple[str, Row | str]]:
    """(file, line and row number, the row or what is wrong with it) of each; every value is a text.

    Raises:
        ValueError: no header, two columns of one name, or a file that is not CSV in UTF-8.
    """
    with path.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.reader(handle, strict=True)
        try:
            header = next(reader, [])
            if not header or len(set(header)) < len(header):
                raise ValueError(f"{path}: the first line has to name the columns, each once; it is {header}")
            for number, values in enumerate((each for each in reader if each), start=1):
                place = f"{path}: line {reader.line_num}, row {number}"
                yield (
                    place,
                    dict(zip(header, values, strict=True)) if len(values) == len(header) else _why(values, header),
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: line {reader.line_num}: not CSV in UTF-8: {error}") from error


def _why(values: list[str], header: list[str]) -> str:
    return f"{len(values)} values, and the first line names {len(header)} columns: {', '.join(header)}"


def rows_by_id(path: Path) -> Iterator[tuple[str, Row]] | None:
    """(file and row number, the row with its name as `id`) of each; None where the file is not one JSON object whose values
    are objects. No line of a file of problems is such an object: it would hold no text.

    Raises:
        ValueError: an object has a name twice, one of which would be lost.
    """
    with path.open("rb") as handle:
        if not _OBJECT_OF_OBJECTS.match(handle.read(256)):
            return None
    if path.stat().st_size > MAX_ARRAY_BYTES:
        raise ValueError(
            f"{path}: one JSON object of {path.stat().st_size >> 20} MiB, and one of more than {MAX_ARRAY_BYTES >> 20} is "
            f"not read as a whole. Convert it: jq -c 'to_entries[] | {{id: .key}} + .value' {path.name} > rows.jsonl"
        )
    rows = _one_object(path)
    if not rows or not all(isinstance(row, dict) for row in rows.values()):
        return None
    return ((f"{path}: row {number}", {"id": name} | row) for number, (name, row) in enumerate(rows.items(), start=1))


def _one_object(path: Path) -> dict[str, Any]:
    """The file's only JSON value; nothing where it is another kind of file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_each_once)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return {}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return value if isinstance(value, dict) else {}


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index]))
        raise ValueError(f"{twice!r} is there twice in one JSON object; which of the two is meant?")
    return found
