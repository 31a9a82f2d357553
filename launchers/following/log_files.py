"""The log files of a stage's tasks: which there are, which one tells why it failed, their last lines, their growth."""

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from launchers.following.run_state import StageFiles

BLOCK = 1 << 16
SEARCHED_BYTES = 1 << 20
"""How much of each log's end is searched for errors: a log may have gigabytes."""
POLL_S = 0.5
ERROR = re.compile(
    r"Traceback \(most recent call last\)|^\S*(Error|Exception)\b[^=]*$|\bERROR\b|\bFATAL\b"
    r"|(srun|slurmstepd|enroot|pyxis): error|out of memory|oom[-_]kill|Segmentation fault|Bus error"
    r"|NCCL (WARN|error)|service \S+ ended before main|CANCELLED AT"
)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Log:
    task: int
    """Index of the task in its stage."""
    process: str
    """`main`, `main-3`, `server-0`, or `slurm-4711_3`, the job's own."""
    path: Path
    bytes: int
    mtime: float


def of_stage(stage: StageFiles, tasks: list[int]) -> list[Log]:
    """The logs of these tasks; the jobs' own of a stage of several tasks are in the stage's folder, by array index."""
    found = [log for task in tasks for log in _in_folder(stage.task_folder(task) / "logs", task)]
    return sorted(found, key=lambda log: -log.mtime)


def of_job(path: Path, task: int) -> list[Log]:
    try:
        stat = path.stat()
    except OSError:
        return []
    return [Log(task, path.stem, path, stat.st_size, stat.st_mtime)]


def _in_folder(folder: Path, task: int) -> list[Log]:
    try:
        entries = [(entry, entry.stat()) for entry in os.scandir(folder) if entry.name.endswith(".log")]
    except OSError:
        return []
    return [Log(task, e.name.removesuffix(".log"), Path(e.path), stat.st_size, stat.st_mtime) for e, stat in entries]


def tail(path: Path, lines: int, end: int | None = None) -> list[str]:
    """The last lines, read from the end, or from byte `end`."""
    with path.open("rb") as handle:
        return _split(_end(handle, lines, end))[-lines:] if lines > 0 else []


def end_of_lines(path: Path) -> int:
    """The byte where its last whole line ends: one that is being written comes later."""
    with path.open("rb") as handle:
        size = handle.seek(0, os.SEEK_END)
        content = _end(handle, 0, size)
    return size - len(content) + content.rfind(b"\n") + 1


def _end(handle: IO[bytes], lines: int, end: int | None) -> bytes:
    position = handle.seek(0, os.SEEK_END) if end is None else end
    blocks: list[bytes] = []
    newlines = 0
    while position > 0 and newlines <= lines:
        size = min(BLOCK, position)
        position -= size
        handle.seek(position)
        blocks.insert(0, handle.read(size))
        newlines += blocks[0].count(b"\n")
    return b"".join(blocks)


def _split(content: bytes) -> list[str]:
    lines = content.decode(errors="replace").split("\n")
    return [clean(line) for line in (lines[:-1] if lines[-1] == "" else lines)]


def clean(line: str) -> str:
    """What a terminal would show in the end: progress bars overwrite their line, colours and control codes are gone."""
    return ESCAPES.sub("", line.rstrip("\r").rsplit("\r", 1)[-1])


def errors(path: Path, lines: int) -> list[str]:
    """The last lines that look like errors, with the tracebacks they belong to."""
    with path.open("rb") as handle:
        handle.seek(max(0, handle.seek(0, os.SEEK_END) - SEARCHED_BYTES))
        return _matching(_split(handle.read()))[-lines:]


def _matching(text: list[str]) -> list[str]:
    found: list[str] = []
    inside = False
    for line in text:
        if "Traceback (most recent call last)" in line:
            inside = True
        elif inside and not line.startswith((" ", "\t")) and line:
            inside = False
            found.append(line)
            continue
        if inside or ERROR.search(line):
            found.append(line)
    return found


def most_telling(logs: list[Log]) -> Log:
    """The first of a failed task's logs to have ended with an error: what the others then say follows from it."""
    with_errors = [log for log in logs if errors(log.path, 1)]
    return min(with_errors, key=lambda log: log.mtime) if with_errors else logs[0]


class Follower:
    """A file's new lines, as `tail -F` gives them: also after it was truncated, replaced, or made only later."""

    def __init__(self, path: Path, position: int) -> None:
        self.path = path
        self.position = position
        self.inode = self._stat()[0]
        self.partial = b""

    def _stat(self) -> tuple[int, int]:
        """Inode and size; zeros where there is no file."""
        try:
            stat = self.path.stat()
        except OSError:
            return 0, 0
        return stat.st_ino, stat.st_size

    def new_lines(self) -> list[str]:
        inode, size = self._stat()
        if inode != self.inode or size < self.position:
            self.inode, self.position, self.partial = inode, 0, b""
        if size == self.position:
            return []
        with self.path.open("rb") as handle:
            handle.seek(self.position)
            content = self.partial + handle.read(size - self.position)
        self.position = size
        whole, newline, self.partial = content.rpartition(b"\n")
        return _split(whole + newline)

    def __iter__(self) -> Iterator[str]:
        """Yield new lines for as long as the caller asks."""
        while True:
            yield from self.new_lines()
            time.sleep(POLL_S)
