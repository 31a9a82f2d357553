"""The row files a stage is given, with what their columns are called here.

    files = row_files("grade", ["rows.jsonl"], split=None, columns={"problem": "query"}, made_in=folder)
    mapped = map_rows(folder, files, make)     # every pass over them renames the columns first

Files that a stage of this repository wrote are read as they are: they have its names already.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, overload

from nemo_ext.records.manifest import MANIFEST
from nemo_ext.rows.outside.columns import Columns, check_columns
from nemo_ext.rows.outside.read import is_array, read_any
from nemo_ext.rows.sources import comes_meanwhile, data_files, data_patterns

LOOKED_AT = 100
"""Rows that are looked at for a column that none of them has."""


def is_own(path: Path) -> bool:
    """Whether a stage wrote the file: then a broken line is an error, not something to pass over."""
    return (path.parent / MANIFEST).is_file()


@dataclass(frozen=True)
class RowFiles(Sequence[Path]):
    """Paths, in order, that keep what is known of them: pass it on whole, or a slice of it, not as a list."""

    paths: tuple[Path, ...]
    columns: Columns = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    """Patterns of the files that would be among them."""
    came_meanwhile: bool = False
    """They are fetched while the stage runs."""

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> "RowFiles": ...
    def __getitem__(self, index: int | slice) -> "Path | RowFiles":
        return replace(self, paths=self.paths[index]) if isinstance(index, slice) else self.paths[index]

    @property
    def facts(self) -> dict[str, Any]:
        """The fields of Facts that say which files a stage read."""
        return {
            "inputs": list(self.paths),
            "listed": list(self.listed),
            "inputs_came_meanwhile": self.came_meanwhile,
        }


def columns_of(files: Sequence[Path], path: Path) -> Columns:
    """How the columns of one of the files are called here; empty: as in the file."""
    return files.columns if isinstance(files, RowFiles) and files.columns and not is_own(path) else {}


def row_files(stage: str, sources: Sequence[str], split: str | None, columns: Any, made_in: Path) -> RowFiles:
    """The files of all sources, as `data_files` finds or makes them.

    Raises:
        ValueError: what `data_files` and `check_columns` raise; columns for files that need none; columns that name one
            which the rows lack.
    """
    check_columns(f"stages.{stage}.columns", columns)
    named = dict(columns or {})
    paths = tuple(path for source in sources for path in data_files(source, split, made_in))
    if named:
        _require_named(stage, paths, named)
    return RowFiles(
        paths,
        named,
        tuple(pattern for source in sources for pattern in data_patterns(source, split)),
        any(comes_meanwhile(source) for source in sources),
    )


def _require_named(stage: str, paths: Sequence[Path], columns: Columns) -> None:
    """A wrong name would drop every row of the file, one by one."""
    outside = next((path for path in paths if not is_own(path)), None)
    if outside is None:
        raise ValueError(
            f"stages.{stage}.columns={columns}: {paths[0]} is a stage's own file, whose columns have their names already. "
            "Leave columns out"
        )
    if is_array(outside):
        return  # refused, with the command that converts it, where rows are read
    there = {key for row in islice(read_any(outside), LOOKED_AT) if isinstance(row, dict) for key in row}
    for key, column in columns.items():
        lacking = [name for name in ([column] if isinstance(column, str) else column or []) if name not in there]
        if there and lacking:
            raise ValueError(
                f"stages.{stage}.columns: {key}: {column}; none of the first {LOOKED_AT} rows of {outside} has "
                f"{', '.join(map(repr, lacking))}. They have {', '.join(sorted(there))}"
            )
