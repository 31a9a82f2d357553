"""What a session's processes occupy, read from /proc: the limit per process does not bound all of them together."""

import os
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path


def pid_of(pidfd: int) -> int:
    """The process id, in our namespace, of the process behind a pidfd; -1 once it has ended."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise OSError(f"descriptor {pidfd} is not a pidfd")


def over(roots: Collection[int], limit: int) -> list[int]:
    """Those of these processes that hold, with all their descendants, more than `limit` bytes.

    One pass over /proc, whatever their number: not every kernel lists a process's children. What is shared counts
    once, which is slow to find out and done only where the quick sum is too much.
    """
    children: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit() and (parent := _parent(name)) is not None:
            children[parent].append(int(name))
    trees = {root: _tree(root, children) for root in roots}
    return [root for root, tree in trees.items() if _sum(_resident, tree) > limit and _sum(_share, tree) > limit]


def _parent(name: str) -> int | None:
    try:
        with open(f"/proc/{name}/stat", "rb") as handle:
            return int(handle.read().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return None


def _tree(root: int, children: dict[int, list[int]]) -> list[int]:
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def _sum(measure: Callable[[int], int], tree: list[int]) -> int:
    return sum(measure(pid) for pid in tree)


def _resident(pid: int) -> int:
    """Anonymous and shared memory."""
    try:
        return _kilobytes(f"/proc/{pid}/status", ("RssAnon:", "RssShmem:")) << 10
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _share(pid: int) -> int:
    """The same, a page that n processes share counted as 1/n."""
    try:
        return _kilobytes(f"/proc/{pid}/smaps_rollup", ("Pss_Anon:", "Pss_Shmem:")) << 10
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended, or the kernel has no such file
        return _resident(pid)


def _kilobytes(path: str, keys: tuple[str, ...]) -> int:
    lines = Path(path).read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(keys))
