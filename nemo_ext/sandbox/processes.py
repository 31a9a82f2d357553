"""The processes of all sessions, as the fork server's own /proc shows them: who is whose, who stands still, what they
occupy. A session is named by its process 1; ids are those of the fork server's process namespace.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import suppress

READ_BYTES = 1 << 16
STATE, PARENT, NUM_THREADS = 0, 1, 17  # in /proc/PID/stat, counted from after the program's name
STANDING = (b"T", b"Z", b"X")  # stopped, ended, ending
GONE = (FileNotFoundError, ProcessLookupError)


def pid_of(pidfd: int) -> int:
    """The id, in the namespace that its process 1 was forked from, of the process behind a pidfd.

    Raises:
        OSError: it has ended.
    """
    with open(f"/proc/self/fdinfo/{pidfd}") as handle:
        for line in handle:
            if line.startswith("NSpid:"):
                return int(line.split()[1:][-2:][0])
    raise ProcessLookupError(f"descriptor {pidfd} is of no living process")


class Processes:
    """All methods raise OSError once the fork server has ended, and with it every session."""

    def __init__(self, proc: int) -> None:
        """`proc`: a descriptor of the folder, closed by `close`; no session has started yet."""
        self._proc = proc
        self._others = frozenset(os.listdir(proc))

    def close(self) -> None:
        os.close(self._proc)
        self._proc = -1  # the number may soon be another file's

    def children(self) -> dict[int, list[int]]:
        """The children of every process, from one look at each."""
        found: dict[int, list[int]] = defaultdict(list)
        for pid in self._all():
            if (parent := self._parent(pid)) is not None:
                found[parent].append(pid)
        return found

    def left_behind(self, root: int, sessions: Collection[str]) -> bool:
        """Whether `root` has descendants, zombies too. Only what is no session itself is looked at, so that this costs
        one listing; a process that takes the id of a session which has just ended is found by the next `children`."""
        unknown = set(os.listdir(self._proc)).difference(self._others, sessions)
        return any(self._descends(int(name), root) for name in unknown)

    def one_thread(self, root: int) -> bool:
        """Whether it has one thread, by the links of its folder of threads: itself, its parent, one each."""
        return os.stat(f"{root}/task", dir_fd=self._proc).st_nlink == 3

    def stopped(self, root: int) -> bool:
        """Whether none of its threads can run before a signal lets it go on."""
        try:
            fields = self._stat(f"{root}/stat")
            if fields[NUM_THREADS] == b"1":
                return fields[STATE] in STANDING
            threads = os.listdir(f"/proc/self/fd/{self._proc}/{root}/task")
            return all(self._stat(f"{root}/task/{thread}/stat")[STATE] in STANDING for thread in threads)
        except GONE:
            return True

    def over(self, roots: Collection[int], limit: int, children: dict[int, list[int]]) -> list[int]:
        """The processes among `roots` that hold, with all their descendants, more than `limit` bytes.

        What is shared counts once, which is slow to find out and done only where the quick sum is too much.
        """
        trees = {root: _tree(root, children) for root in roots}
        heavy = {root: tree for root, tree in trees.items() if _sum(self._resident, tree) > limit}
        return [root for root, tree in heavy.items() if _sum(self._share, tree) > limit]

    def _all(self) -> list[int]:
        return [int(name) for name in os.listdir(self._proc) if name.isdigit()]

    def _descends(self, pid: int, root: int) -> bool:
        parent: int | None = pid
        while parent:
            parent = self._parent(parent)
            if parent == root:
                return True
        return False

    def _parent(self, pid: int) -> int | None:
        try:
            return int(self._stat(f"{pid}/stat")[PARENT])
        except GONE:
            return None

    def _stat(self, path: str) -> list[bytes]:
        """The fields after the program's name (proc(5))."""
        return self._read(path).rpartition(b")")[2].split()

    def _read(self, path: str) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._proc)
        try:
            return os.read(descriptor, READ_BYTES)
        finally:
            os.close(descriptor)

    def _resident(self, pid: int) -> int:
        """Anonymous and shared memory."""
        with suppress(*GONE):
            return self._kilobytes(f"{pid}/status", (b"RssAnon:", b"RssShmem:")) << 10
        return 0

    def _share(self, pid: int) -> int:
        """The same, a page that n processes share counted as 1/n."""
        with suppress(*GONE, PermissionError):  # it has ended, or the kernel has no such file
            return self._kilobytes(f"{pid}/smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:")) << 10
        return self._resident(pid)

    def _kilobytes(self, path: str, keys: tuple[bytes, ...]) -> int:
        return sum(int(line.split()[1]) for line in self._read(path).splitlines() if line.startswith(keys))


def _tree(root: int, children: dict[int, list[int]]) -> list[int]:
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found


def _sum(measure: Callable[[int], int], tree: list[int]) -> int:
    return sum(measure(pid) for pid in tree)
