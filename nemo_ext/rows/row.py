"""Rows: JSONL in, JSONL out. A row only gains keys; a dropped row is written with its reason; in = out + dropped.

Rows of a stage lie in `<stage>/output.jsonl` and `<stage>/dropped.jsonl`. Both appear at once, when the stage has all
of them, so a stage that was killed leaves nothing that a later one could mistake for its output.
"""

import glob
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import orjson

from nemo_ext.records.files import atomic_open
from nemo_ext.rows import exact_json

Row = dict[str, Any]
RowOutcome = tuple[Row, str | None]
"""A row as it leaves a stage, and the reason to drop it, or None."""

OF_A_SOLUTION = (
    "sample_index", "seed", "choice", "generation", "generated_solution", "finish_reason", "num_prompt_tokens",
    "num_generated_tokens", "trace", "predicted_answer", "is_correct", "reward", "earlier",
)  # fmt: skip
"""What a row says of its solution: of another solution it says other things."""
MALFORMED, TOO_LONG = "malformed_json", "row_too_long"
MAX_ROW_BYTES = 8 << 20
"""A longer line is hardly a row to train on: more likely a file without newlines."""
MAX_BLANK_BYTES = 8 << 20
"""A compressed file with more blank lines than that in a row holds no data set."""
SHOWN_BYTES = 200
_SPLIT = re.compile(
    r"(.+?)-\d{4,}-of-\d{4,}|((?:train|test|valid|val|dev|eval)(?:ing|idation|ation|uation)?(?:_\w+)?)[-.]"
)
"""The names of a data set's files, as train-00000-of-00032.parquet or test.jsonl, begin with their split's."""
ROW_FILES = (".jsonl", ".json", ".jsonl.zst", ".parquet")


def dumps(row: Row) -> bytes:
    """One line, without the newline. Keys keep their order; what JSON has no type for, as parquet may hold, is a string."""
    return exact_json.dumps(row)


def content_id(*parts: str) -> str:
    """A short id that depends on nothing but the text: 16 hex digits of sha256."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]


def written_solution(row: Row) -> str | None:
    """The solution that a model, or a stage after it, wrote: `generated_solution`, or `generation` where that is null or not
    there. None where it is not text. Every stage asks here, so that a solution is the same text to all of them."""
    solution = row.get("generated_solution")
    solution = row.get("generation") if solution is None else solution
    return solution if isinstance(solution, str) else None


def parse_line(line: bytes) -> Row | None:
    """The row on this line, or None if it is not a JSON object."""
    try:
        value = exact_json.loads(line)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a file this pipeline wrote.

    Raises:
        ValueError: at the first line that is not a JSON object, with file and line number. Files from outside are read
            with `row_files.read_any`, which yields what is wrong instead.
        FileNotFoundError: with the path.
    """
    with path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            row = parse_line(line)
            if row is None:
                raise ValueError(
                    f"{path}:{number}: not a JSON object: {line[:80]!r}. The file was changed after it was written?"
                )
            yield row


def require_row_file(path: Path) -> None:
    """Raises ValueError when it is not there or not of a kind that rows are read from."""
    if not path.is_file():
        raise ValueError(
            f"no such file: {path} (looked from {Path.cwd()}). Rows of your own are given with input=, or data= to train on"
        )
    if not path.name.endswith(ROW_FILES):
        raise ValueError(f"{path}: expected a file that ends in {', '.join(ROW_FILES)}")


def shown(line: bytes) -> str:
    """The beginning of a line that could not be read."""
    return line[:SHOWN_BYTES].decode(errors="replace").rstrip()


def open_lines(path: Path) -> AbstractContextManager[IO[bytes]]:
    """The bytes of a .jsonl, or of a .jsonl.zst as if it were not compressed.

    Raises:
        ValueError: it is no zstd file; when it is read, also for one that unpacks to blank lines without end.
    """
    if path.suffix != ".zst":
        return path.open("rb")
    import pyarrow as pa

    try:
        return io.BufferedReader(_Unpacked(path, pa.input_stream(str(path), compression="zstd")), 1 << 20)
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{path}: not a readable zstd file: {error}") from error


class _Unpacked(io.RawIOBase):
    """What a compressed stream holds: 128 KB may be 4 GB of newlines, which would keep a core busy and make no row.

    Raises:
        ValueError: from `readinto`, at more than MAX_BLANK_BYTES of white space in a row.
    """

    def __init__(self, path: Path, stream: Any) -> None:
        self.path, self.stream = path, stream
        self.read_bytes = self.num_blank = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self.stream.readinto(buffer))
        self.read_bytes += count
        view = memoryview(buffer)[:count]
        self.num_blank = self.num_blank + count if bytes(view[:1]).isspace() and bytes(view).isspace() else 0
        if self.num_blank > MAX_BLANK_BYTES:
            raise ValueError(
                f"{self.path}: more than {MAX_BLANK_BYTES >> 20} MiB of blank lines in a row, up to byte "
                f"{self.read_bytes:,} of what it unpacks to. Is it whole where it came from? Without them: "
                f"zstd -dc {self.path.name} | grep '[^[:space:]]' | zstd > rows.jsonl.zst"
            )
        return count

    def close(self) -> None:
        self.stream.close()
        super().close()


def parquet_rows(path: Path) -> Iterator[Row]:
    """Raises ValueError when the file is not a parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=4096):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a readable parquet file: {error}") from error


def input_files(folder_or_file: str | Path) -> list[Path]:
    """The row files a stage's `input` names, in order: one file; those a pattern such as data/train-*.parquet matches;
    every output of an earlier stage's tasks; or, of any other folder, its row files and those in its data/.

    Raises:
        ValueError: nothing there, or a folder of several splits, which may hold one another's rows.
    """
    path = Path(folder_or_file)
    if not path.exists() and glob.has_magic(str(path)):
        matching = sorted(Path(name) for name in glob.glob(str(path)))
        if not matching:
            raise ValueError(f"no file matches {path} (looked from {Path.cwd()})")
        return [file for each in matching for file in input_files(each)]
    if not path.is_dir():
        require_row_file(path)
        return [path]
    found = sorted([*path.glob("output*.jsonl"), *path.glob("*/output*.jsonl")])
    if not found and not (path / "config.yaml").is_file():  # which every stage's folder has
        found = sorted(
            file for pattern in ("*", "data/*") for file in path.glob(pattern) if file.name.endswith(ROW_FILES)
        )
        _refuse_several_splits(path, found)
    if not found:
        raise ValueError(
            f"{path} holds no output*.jsonl: has that stage run? (A folder of your own: {', '.join(ROW_FILES)})"
        )
    return found


def _refuse_several_splits(folder: Path, files: list[Path]) -> None:
    splits = sorted({found[1] or found[2] for file in files if (found := _SPLIT.match(file.name))})
    if len(splits) > 1:
        first = next(file for file in files if file.name.startswith(splits[0]))
        pattern = first.with_name(f"{splits[0]}[-.]*")
        raise ValueError(
            f"{folder} has the splits {', '.join(splits)}, and one may be part of another. Say which: "
            f"split={splits[0]}, where the recipe has it, or a pattern such as '{pattern}'"
        )


def input_patterns(folder_or_file: str | Path) -> list[str]:
    """Patterns of the files that would be among `input_files`, those included that are not there yet; none of one file."""
    path = Path(folder_or_file)
    if not path.exists():
        below = [pattern for found in sorted(glob.glob(str(path))) for pattern in input_patterns(found)]
        return [str(path), *below]
    if not path.is_dir():
        return []
    place = glob.escape(str(path))
    outputs = [f"{place}/output*.jsonl", f"{place}/*/output*.jsonl"]
    if any(glob.glob(pattern) for pattern in outputs):
        return outputs
    return [*outputs, *(f"{place}/{below}*{ending}" for below in ("", "data/") for ending in ROW_FILES)]


class RowWriter:
    """Collects a stage's rows: `keep`, `drop`; the files appear when the `with` block ends well.

    >>> with RowWriter(folder) as rows:
    ...     rows.keep({"id": 1})
    ...     rows.drop({"id": 2}, "no_problem")
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = 0
        self.dropped: Counter[str] = Counter()
        self._contexts = [atomic_open(folder / name) for name in ("output.jsonl", "dropped.jsonl")]
        self._handles: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        self._handles = [context.__enter__() for context in self._contexts]
        return self

    def keep(self, row: Row) -> None:
        self._handles[0].write(dumps(row) + b"\n")
        self.kept += 1

    def drop(self, row: Row, reason: str) -> None:
        self._handles[1].write(dumps(row | {"reason": reason}) + b"\n")
        self.dropped[reason] += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # dropped.jsonl first: an output.jsonl in place means that its other half is in place too
        for context in reversed(self._contexts):
            context.__exit__(kind, error, trace)

    @property
    def total(self) -> int:
        return self.kept + sum(self.dropped.values())

    @property
    def counts(self) -> dict[str, Any]:
        """The fields of Facts that say how many rows there were."""
        return {"rows_in": self.total, "rows_out": self.kept, "dropped": self.dropped}


def require_rows(count: int, stage: str, dropped: Counter[str], example: str = "") -> None:
    """Stop a run whose data set has become empty, where it became so.

    Raises:
        ValueError: with what was dropped and why; `example` is one row's own reason.
    """
    if count == 0:
        last = f"; of the last, {example}" if example else ""
        raise ValueError(
            f"{stage}: no row is left. Dropped here: {dict(dropped) or 'nothing; the input was empty'}{last}"
        )


def in_shard(row_id: str, shard: int, shards: int) -> bool:
    """Whether a row belongs to this shard: by a hash of its id, so that all samples of a problem stay together."""
    return shards == 1 or int(content_id(str(row_id))[:8], 16) % shards == shard
