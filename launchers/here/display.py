"""The display of a running launch: one live line per stage, or plain heartbeat lines where there is no terminal."""

import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from nemo_ext.records import manifest
from nemo_ext.records.progress import read_heartbeat

PLAIN_INTERVAL_S = 10.0


def duration(seconds: float) -> str:
    """`7 s`, `3:05` or `2:03:04`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def describe_beat(beat: dict[str, Any]) -> str:
    total = f"/{beat['total']:,}" if beat["total"] else ""
    text = f"{beat['done']:,}{total} {beat['unit']}  {beat['rate']:.1f}/s"
    if beat["eta_s"] is not None:
        text += f"  ETA {duration(beat['eta_s'])}"
    known = {"done", "total", "unit", "rate", "eta_s", "time"}
    extras = [
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in beat.items()
        if key not in known
    ]
    return "  ".join([text, *extras])


def describe_result(folders: list[Path]) -> str:
    """Rows, drops and figures of a finished stage, from its manifests."""
    manifests = [manifest.read(folder) for folder in folders]
    parts = []
    if any(m["rows_out"] is not None for m in manifests):
        parts.append(f"{sum(m['rows_out'] or 0 for m in manifests):,} rows")
    dropped: dict[str, int] = {}
    for m in manifests:
        for reason, count in m["dropped"].items():
            dropped[reason] = dropped.get(reason, 0) + count
    if dropped:
        parts.append("dropped " + ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items())))
    if len(manifests) == 1:
        parts += [
            f"{key} {value}" for key, value in manifests[0]["figures"].items() if isinstance(value, int | float | str)
        ]
    return ", ".join(parts)


class Display:
    """Lines about stages on stderr, so that stdout stays for what a command is asked to print."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.live: Live | None = None
        self.last_plain = 0.0
        self.started = 0.0
        self.stage = ""

    def begin(self, stage: str, resumed: bool) -> None:
        self.stage, self.started, self.last_plain = stage, time.monotonic(), time.monotonic()
        if self.console.is_terminal:
            self.live = Live(console=self.console, refresh_per_second=4, transient=True)
            self.live.start()
        elif resumed:
            self.line(f"{stage}: resumes")

    def beat(self, folders: list[Path], finished: int) -> None:
        """Called a few times a second with the folders of the running tasks."""
        plain_due = time.monotonic() - self.last_plain >= PLAIN_INTERVAL_S
        if self.live is None and not plain_due:
            return
        beats = [beat for folder in folders if (beat := read_heartbeat(folder))]
        text = f"{self.stage:<18} {duration(time.monotonic() - self.started):>7}"
        if len(folders) + finished > 1:
            text += f"  {finished} tasks done, {len(folders)} running"
        if beats:
            text += "  " + describe_beat(max(beats, key=lambda beat: beat["time"]))
        if self.live:
            self.live.update(Text(text, overflow="ellipsis", no_wrap=True))
        else:
            self.last_plain = time.monotonic()
            self.line(text)

    def end(self, folders: list[Path] | None) -> None:
        """The stage is over; `folders` are its tasks', or None when it failed."""
        if self.live:
            self.live.stop()
            self.live = None
        if folders is not None:
            seconds = duration(time.monotonic() - self.started)
            self.line(f"{self.stage:<18} {seconds:>7}  {describe_result(folders)}", style="green")

    def done_before(self, stage: str, folders: list[Path]) -> None:
        self.line(f"{stage:<18}    done  {describe_result(folders)}", style="dim")

    def show_estimate(self, table: list[str]) -> None:
        """The lines of launchers/estimates/estimate.py's table: a title, a heading, the stages, a total."""
        for number, text in enumerate(table):
            self.line(text, style="bold" if number < 2 or number == len(table) - 1 else "")

    def line(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, markup=False)
        sys.stderr.flush()
