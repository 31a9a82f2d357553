"""What a Slurm site says of itself, and which of a run's jobs it still has."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launchers.slurm.client import client
from launchers.slurm.time_limit import parse_maximum


@dataclass(frozen=True)
class Partition:
    name: str
    is_default: bool
    state: str
    max_time_s: int | None
    """None: no limit."""
    max_nodes: int | None
    """Of one job, and no more than it has; None: not said."""


def max_array_size() -> int | None:
    """Elements of a job array are numbered below this; None where the controller does not say.

    Raises:
        ValueError: the controller does not answer.
    """
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", client(["scontrol", "show", "config"]))
    return int(found[1]) if found else None


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


def not_ended(jobs: Iterable[str]) -> set[str]:
    """Those of `jobs` that wait or run.

    Raises:
        ValueError: the controller does not answer.
    """
    wanted = set(jobs)
    return wanted & set(client(["squeue", "--me", "--noheader", "--format=%F"]).split()) if wanted else set()


def _partition(fields: dict[str, str]) -> Partition:
    counts = [int(fields[key]) for key in ("MaxNodes", "TotalNodes") if fields.get(key, "").isdigit()]
    return Partition(
        name=fields["PartitionName"],
        is_default=fields.get("Default") == "YES",
        state=fields.get("State", "UP"),
        max_time_s=parse_maximum(fields.get("MaxTime", "")),
        max_nodes=min(counts, default=None),
    )
