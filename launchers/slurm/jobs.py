"""Ask squeue and sacct about a run's jobs, in one call each, however many jobs and array elements there are.

squeue --states=all knows what the controller knows: jobs that wait or run, and those that ended within MinJobAge
(5 minutes by default). Older ones are in sacct where the cluster keeps accounts (slurmdbd).
"""

import os
import re
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from launchers.slurm.client import client

TIMEOUT_S = 10.0
FIELDS = [
    "JobArrayID", "State", "Reason", "NodeList", "TimeUsed", "StartTime", "EndTime", "RestartCnt", "exit_code", "Command"
]  # fmt: skip
ACCOUNTED = "JobID,State,NodeList,ElapsedRaw,Start,End,ExitCode"
NOT_ENDED = {
    "PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING",
    "RESV_DEL_HOLD", "SIGNALING", "SPECIAL_EXIT", "STAGE_OUT", "STOPPED", "SUSPENDED",
}  # fmt: skip


class Job(NamedTuple):
    """A job, or one element of an array."""

    state: str
    """Slurm's word, e.g. RUNNING."""
    reason: str
    """Why it waits, or ended; empty: none given."""
    nodes: str
    elapsed_s: float
    """How long this attempt has run."""
    start: float | None
    """Seconds since the epoch; of a waiting job, when Slurm expects it to start."""
    end: float | None
    restarts: int
    exit_code: int
    signal: int
    script: str
    """Empty: not said (sacct)."""

    @property
    def ended(self) -> bool:
        return self.state not in NOT_ENDED


Elements = dict[int | None, Job]
"""Index in the array, None for a job that is not an array, -> what is known of it."""


def queue(jobs: Iterable[str], timeout_s: float = TIMEOUT_S) -> dict[str, Elements]:
    """Job -> its elements, of the jobs that the controller still knows.

    Raises:
        ValueError: squeue is not there, failed, or did not answer in time.
    """
    os.environ["SLURM_BITSTR_LEN"] = "0"  # else the list of waiting elements is cut at 64 characters
    form = ",".join(f"{field}:|" for field in FIELDS[:-1]) + f",{FIELDS[-1]}:"
    try:
        text = client(
            ["squeue", "--noheader", f"--jobs={','.join(jobs)}", "--states=all", f"--Format={form}"], timeout_s
        )
    except ValueError as error:
        if "Invalid job id" in str(error):  # what it says of one job that is forgotten; of several it says nothing
            return {}
        raise
    return parse_queue(text)


def parse_queue(text: str) -> dict[str, Elements]:
    found: dict[str, Elements] = {}
    for line in text.splitlines():
        words = [word.strip() for word in line.split("|", len(FIELDS) - 1)]
        if len(words) < len(FIELDS):
            continue
        name, state, reason, nodes, used, start, end, restarts, status, script = words
        wait = int(status) if status.isdigit() else 0
        job = Job(
            state, "" if reason == "None" else reason, nodes, seconds(used), moment(start), moment(end),
            int(restarts) if restarts.isdigit() else 0, wait >> 8, wait & 0x7F, script,
        )  # fmt: skip
        _add(found, name, job)
    return found


def accounts(jobs: Iterable[str], timeout_s: float = TIMEOUT_S) -> dict[str, Elements]:
    """The same from sacct; every earlier attempt of a job counts as a restart.

    Raises:
        ValueError: there is no accounting here, or it did not answer in time.
    """
    os.environ["SLURM_BITSTR_LEN"] = "0"
    argv = ["sacct", "--noheader", f"--jobs={','.join(jobs)}", "--allocations", "--duplicates", "--parsable2"]
    return parse_accounts(client([*argv, f"--format={ACCOUNTED}"], timeout_s))


def parse_accounts(text: str) -> dict[str, Elements]:
    found: dict[str, Elements] = {}
    for line in text.splitlines():
        words = line.split("|")
        if len(words) != len(ACCOUNTED.split(",")):
            continue
        name, state, nodes, used, start, end, code = words
        exit_code, _, signal = code.partition(":")
        nodes = "" if nodes == "None assigned" else nodes
        job = Job(
            (state.split() or [""])[0], "", nodes, float(used) if used.isdigit() else 0.0, moment(start), moment(end),
            0, int(exit_code) if exit_code.isdigit() else 0, int(signal) if signal.isdigit() else 0, "",
        )  # fmt: skip
        _add(found, name, job)
    return found


def _add(found: dict[str, Elements], name: str, job: Job) -> None:
    number, indices = elements(name)
    known = found.setdefault(number, {})
    for index in indices:
        earlier = known.get(index)
        known[index] = job if earlier is None else job._replace(restarts=earlier.restarts + 1)


def elements(name: str) -> tuple[str, list[int | None]]:
    """`("4711", [5, 6, 9])` for `4711_[5-6,9%2]`; `("4711", [None])` for `4711`."""
    number, underscore, rest = name.partition("_")
    if not underscore:
        return number, [None]
    indices: list[int | None] = []
    for first, last, step in re.findall(r"(\d+)(?:-(\d+)(?::(\d+))?)?", rest.partition("%")[0]):
        indices += range(int(first), int(last or first) + 1, int(step or 1))
    return number, indices


def seconds(text: str) -> float:
    """`1-02:03:04`, `2:03:04`, `3:04` in seconds; 0 for any other text."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if not found:
        return 0.0
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + rest)


def moment(text: str) -> float | None:
    """Slurm's local time, `2026-11-21T19:17:10`; None for N/A, Unknown and NONE."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
