"""A Slurm site's settings, and the jobs of a run that it still has."""

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launchers.planning.preflight import clock_ahead
from launchers.slurm.client import client
from launchers.slurm.jobs import moment
from launchers.slurm.time_limit import parse_maximum


@dataclass(frozen=True)
class Partition:
    name: str
    is_default: bool
    state: str
    max_time_s: int | None
    """None: no limit."""
    max_nodes: int | None
    """The limit of one job, and of what the partition has; None: not known."""


@dataclass(frozen=True)
class Settings:
    max_array_size: int | None
    """Elements of a job array are numbered below this; None: not said."""
    clock_s: float | None
    """How far the controller's clock is ahead of this machine's, to a second; None: not said."""


def settings() -> Settings:
    """What the controller says of itself.

    Raises:
        ValueError: it does not answer.
    """
    asked = time.time()
    text = client(["scontrol", "show", "config"])
    size, at = (re.search(form, text) for form in (r"MaxArraySize\s*=\s*(\d+)", r"data as of (\S+)"))
    clock = moment(at[1]) if at else None
    return Settings(int(size[1]) if size else None, None if clock is None else clock_ahead(clock, asked))


def partitions() -> dict[str, Partition]:
    """All of them by name.

    Raises:
        ValueError: the controller does not answer.
    """
    found = {}
    for line in client(["scontrol", "show", "partition", "--oneliner"]).splitlines():
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" in fields:
            made = _partition(fields)
            found[made.name] = made
    return found


def recorded_jobs(run_dir: Path) -> dict[str, Any]:
    """The content of jobs.json; empty before the first submission."""
    path = run_dir / "jobs.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def not_ended() -> dict[str, str]:
    """The user's jobs that wait or run, each with its script.

    Raises:
        ValueError: the controller does not answer.
    """
    lines = client(["squeue", "--me", "--noheader", "--format=%F|%o"]).splitlines()
    return {job.strip(): script.strip() for job, _, script in (line.partition("|") for line in lines)}


def _partition(fields: dict[str, str]) -> Partition:
    counts = [int(fields[key]) for key in ("MaxNodes", "TotalNodes") if fields.get(key, "").isdigit()]
    return Partition(
        name=fields["PartitionName"],
        is_default=fields.get("Default") == "YES",
        state=fields.get("State", "UP"),
        max_time_s=parse_maximum(fields.get("MaxTime", "")),
        max_nodes=min(counts, default=None),
    )
