"""A stage's heartbeat: what it has done, at what rate, when it will end. The launcher shows it; so does `cat`."""

import os
import time
from pathlib import Path
from typing import Any

import orjson

HEARTBEAT = "heartbeat.json"


class Progress:
    """Writes `<folder>/heartbeat.json` at most every `interval_s`; `update` costs a clock read otherwise.

    The file is replaced whole but not synced: it is a view, and losing it loses nothing.
    """

    def __init__(self, folder: Path, unit: str, interval_s: float = 0.5) -> None:
        self.folder = folder
        self.unit = unit
        self.interval_s = interval_s
        self.started = time.monotonic()
        self.first_done: int | None = None
        self.last_write = 0.0

    def update(self, done: int, total: int | None = None, **info: Any) -> None:
        """`done` of `total` units; `info` are short extra figures such as loss=0.41."""
        if self.first_done is None:
            self.first_done = done  # a resumed stage starts here, so its rate counts only its own work
        now = time.monotonic()
        finished = total is not None and done >= total
        if now - self.last_write < self.interval_s and not finished:
            return
        self.last_write = now
        rate = (done - self.first_done) / max(now - self.started, 1e-9)
        eta = (total - done) / rate if total is not None and rate > 0 else None
        beat = {
            "done": done,
            "total": total,
            "unit": self.unit,
            "rate": rate,
            "eta_s": eta,
            "time": time.time(),
            **info,
        }
        temporary = self.folder / f".{HEARTBEAT}.{os.getpid()}"
        temporary.write_bytes(orjson.dumps(beat))
        os.replace(temporary, self.folder / HEARTBEAT)


def read_heartbeat(folder: Path) -> dict[str, Any] | None:
    try:
        return orjson.loads((folder / HEARTBEAT).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
