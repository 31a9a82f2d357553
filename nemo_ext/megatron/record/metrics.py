"""metrics.jsonl: one line per step and per evaluation, each step once, whatever happened to the process."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from nemo_ext.records.files import write_text_atomic


class MetricsLog:
    """Appends lines to `path`. Opening it at `step` drops the lines of later steps and a torn last line: they belong
    to work that was lost with the process and will be done again."""

    def __init__(self, path: Path, step: int) -> None:
        if path.is_file():
            kept = [line for line in read_metrics(path) if line["step"] <= step]
            write_text_atomic(path, "".join(orjson.dumps(line).decode() + "\n" for line in kept))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = path.open("ab")

    def write(self, **values: Any) -> None:
        self._handle.write(orjson.dumps(values) + b"\n")
        self._handle.flush()

    def sync(self) -> None:
        """Make the lines as durable as the checkpoint they precede."""
        os.fsync(self._handle.fileno())

    def close(self) -> None:
        self._handle.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a metrics.jsonl; a last line without its newline is skipped."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield orjson.loads(line)
