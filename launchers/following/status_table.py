"""A run's status as lines of text for a given width. Pure."""

import shlex

from launchers.following.run_status import RunStatus
from launchers.following.stage_status import Row
from launchers.here.display import duration

STYLES = {
    "done": "green", "running": "cyan", "requeued": "yellow", "pending": "yellow", "waiting": "dim",
    "failed": "bold red", "cancelled": "magenta", "stopped": "magenta", "unknown": "yellow", "not started": "dim",
}  # fmt: skip
DROPPED = ("nodes", "job", "retries")
"""Columns that a narrow terminal goes without, the first first; --json has them all."""
NODES_SHOWN, JOBS_SHOWN = 3, 2
BEAT = {"done", "total", "unit", "rate", "eta_s", "time"}
Line = tuple[str, str]
"""Text, style."""


def lines(run: RunStatus, width: int | None) -> list[Line]:
    """`width`: columns; None: as many as it takes (no terminal)."""
    stages = {row.stage for row in run.rows}
    done = stages - {row.stage for row in run.rows if row.state != "done"}
    where = f" ({run.executor})" if run.executor else ""
    found = [(f"{run.run_dir}{where}: {len(done)} of {len(stages)} stages done", "bold")]
    if run.launcher:
        found.append((f"launcher: {run.launcher}", ""))
    if run.slurm:
        found.append((f"Slurm is not heard, so this is from files alone: {run.slurm}", "yellow"))
    found += _table(run.rows, width)
    for row in run.rows:
        if row.error or row.advice:
            found.append((_trouble(row), STYLES[row.state]))
    if first := next((row for row in run.rows if row.tasks.get("failed")), None):
        task = f" --task {first.part}" if first.part else ""
        found.append((f"its log: python launchers/logs.py {shlex.quote(str(run.run_dir))} {first.stage}{task}", ""))
    if run.over and len(done) < len(stages):
        found.append(("To go on: the command that launched it; what is done is kept.", ""))
    return found


def _table(rows: list[Row], width: int | None) -> list[Line]:
    columns = {
        "stage": [name(row) for row in rows],
        "state": [state(row) for row in rows],
        "job": [_some(row.jobs, JOBS_SHOWN) for row in rows],
        "nodes": [_some(row.nodes, NODES_SHOWN) for row in rows],
        "elapsed": ["" if row.elapsed_s is None else duration(row.elapsed_s) for row in rows],
        "ETA": ["" if row.eta_s is None else duration(row.eta_s) for row in rows],
        "retries": [str(row.retries) if row.retries else "" for row in rows],
        "progress": [progress(row) for row in rows],  # last: it is what a narrow terminal cuts
    }
    # an empty column says nothing
    shown = {title: [title, *cells] for title, cells in columns.items() if title in ("stage", "state") or any(cells)}
    sizes = {title: max(map(len, cells)) for title, cells in shown.items()}
    for title in DROPPED:
        if width is not None and title in shown and sum(sizes[each] + 2 for each in shown) - 2 > width:
            del shown[title]
    right = {"elapsed", "ETA", "retries"}
    styles = ["bold", *(STYLES[row.state] for row in rows)]
    found = []
    for number, style in enumerate(styles):
        cells = [
            cells[number].rjust(sizes[title]) if title in right else cells[number].ljust(sizes[title])
            for title, cells in shown.items()
        ]
        text = "  ".join(cells).rstrip()
        found.append((text if width is None or len(text) <= width else f"{text[: width - 1]}…", style))
    return found


def name(row: Row) -> str:
    return f"{row.stage}/{row.part}" if row.part else row.stage


def state(row: Row) -> str:
    if row.state == "waiting":
        return f"waiting for {row.reason}" if row.reason else "waiting"
    return f"{row.state} ({row.reason})" if row.reason else row.state


def progress(row: Row) -> str:
    parts = []
    if row.num_tasks > 1:
        parts.append(f"{row.tasks.get('done', 0):,}/{row.num_tasks:,} done")
        others = sorted(row.tasks.items(), key=lambda item: item[0] != "failed")  # failures first
        parts += [f"{count:,} {word}" for word, count in others if word not in ("done", "not started")]
        text = ", ".join(parts)
        return f"{text}  {row.rate * 3600:,.0f}/h" if row.rate else text
    if row.beat is None:
        return row.result
    total = f"/{row.beat['total']:,}" if row.beat["total"] else ""
    text = f"{row.beat['done']:,}{total} {row.beat['unit']}"
    if row.rate:
        text += f"  {row.rate:.3g}/s"
    more = [
        f"{key} {value:,}" if isinstance(value, int) else f"{key} {value:.4g}"
        for key, value in row.beat.items()
        if key not in BEAT and isinstance(value, int | float)
    ]
    return "  ".join([text, *more[:1]])


def _some(words: list[str], most: int) -> str:
    more = f" +{len(words) - most}" if len(words) > most else ""
    return ",".join(words[:most]) + more


def _trouble(row: Row) -> str:
    where = f" ({', '.join(row.failed_parts)}{', ...' if row.tasks.get('failed', 0) > 5 else ''})"
    text = f"{name(row)}{where if row.failed_parts else ''}: {row.error}".rstrip(": ")
    return f"{text}\n  {row.advice}" if row.advice and row.error else f"{text}: {row.advice}" if row.advice else text
