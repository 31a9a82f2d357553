"""Columns of a file under other names: `columns={problem: query, generated_solution: response}`."""

from collections.abc import Mapping
from typing import Any

from nemo_ext.rows.row import Row

Columns = Mapping[str, Any]
"""The name here -> the file's column, a list of them to join by a space, or null: the column is not taken."""


class BadRow(ValueError):
    """A row that cannot be used; the message is the reason it is dropped under, `detail` what one would want to know."""

    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(reason)
        self.detail = detail


def check_columns(where: str, columns: Any) -> None:
    """Raises ValueError for what is neither null nor a mapping, and for a value that names no column."""
    if not isinstance(columns, Mapping | None):
        raise ValueError(f"{where}={columns!r}; it may be a mapping such as {{problem: query}}")
    for key, column in (columns or {}).items():
        names = column if isinstance(column, list) else [column]
        if column is not None and not (names and all(isinstance(name, str) and name for name in names)):
            raise ValueError(
                f"{where}: {key}: {column!r}; it may be a column's name, a list of them, or null for not to be taken"
            )


def renamed(raw: Row, columns: Columns, optional: frozenset[str] = frozenset()) -> Row:
    """The row with its columns under the names here, and without those they came from.

    Raises:
        BadRow: a column is not there that `columns` names for another key than those of `optional`.
    """
    row = {key: value for key, value in raw.items() if columns.get(key, key) is not None}
    for key, column in columns.items():
        if column is None:
            continue
        names = [column] if isinstance(column, str) else list(column)
        lacking = [each for each in names if each not in raw]
        if lacking and key not in optional:
            raise BadRow(
                f"no column {', '.join(map(repr, lacking))}, which columns.{key} names", f"it has {', '.join(raw)}"
            )
        if not lacking:
            for each in names:
                row.pop(each, None)
            row[key] = raw[names[0]] if len(names) == 1 else " ".join(str(raw[each]).strip() for each in names)
    return row
