"""A memory cgroup for each session, where this machine lets the service make one.

It bounds what no other limit counts: kernel memory of pipes, sockets and page tables. Version 1 and 2 of cgroups (in the
kernel's admin-guide, cgroup-v1/memory.rst and cgroup-v2.rst). Without one, the limits on descriptors and system calls stay
the bound.
"""

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

LIMITS = ("memory.max", "memory.limit_in_bytes")  # of version 2 and 1
SWAP = {"memory.max": ("memory.swap.max", 0), "memory.limit_in_bytes": ("memory.memsw.limit_in_bytes", None)}
EVENTS = ("memory.events", "memory.oom_control")
CONTROLLED = "cgroup.subtree_control"
CLOSE_S, POLL_S = 2.0, 0.01  # until processes that were killed are gone


class MemoryCgroups:
    """`folder` holds those of the sessions; None: this machine gives none."""

    def __init__(self, limit_bytes: int, own: Path | None = None) -> None:
        """`own`: the service's own cgroup, where the caller knows it."""
        self.limit_bytes = limit_bytes
        self.folder: Path | None = None
        self._left: list[Path] = []
        self._moved_from: Path | None = None
        for place in [own] if own else own_cgroups():
            if self._make(place):
                log.info("memory cgroups: below %s, %d MiB a session", self.folder, limit_bytes >> 20)
                return
        log.info("memory cgroups: none can be made here; descriptors and system calls bound kernel memory")

    def _make(self, own: Path) -> bool:
        _sweep(own)
        try:
            folder = Path(tempfile.mkdtemp(prefix=f"sandbox-{os.getpid()}-", dir=own))
        except OSError:
            return False
        self.folder = folder
        try:
            if (own / CONTROLLED).exists():
                self._moved_from = own
                _move_aside(own, folder)
            self.remove(self._limited("trial"))
        except OSError as error:
            log.info("memory cgroups: %s cannot be used: %s", folder, error)
            self.close()
            return False
        return True

    def enclose(self, pid: int) -> Path | None:
        """Put a process, and with it all that it will start, into a cgroup of its own; None: there are none here, or the
        process has ended."""
        if self.folder is None:
            return None
        self._retry()
        session = None
        try:
            session = self._limited(f"session-{pid}")
            (session / "cgroup.procs").write_text(str(pid))
            return session
        except ProcessLookupError:
            self.remove(session)
        except OSError as error:
            log.warning("memory cgroups: %s takes no session any more: %s", self.folder, error)
            self.remove(session)
            self.close()
        return None

    def _limited(self, name: str) -> Path:
        assert self.folder is not None, "its callers have looked"
        session = self.folder / name
        session.mkdir(exist_ok=True)
        limit = next(name for name in LIMITS if (session / name).exists() or name == LIMITS[-1])
        (session / limit).write_text(str(self.limit_bytes))
        swap, most = SWAP[limit]
        with suppress(OSError):  # where swap is not counted
            (session / swap).write_text(str(self.limit_bytes if most is None else most))
        return session

    def remove(self, session: Path | None) -> None:
        """Now, or once its last process has gone."""
        if session is not None:
            self._left.append(session)
            self._retry()

    def _retry(self) -> None:
        self._left = [session for session in self._left if not _removed(session)]

    def close(self) -> None:
        if self.folder is None:
            return
        deadline = time.monotonic() + CLOSE_S
        while not _removed(self.folder) and time.monotonic() < deadline:
            self._retry()
            time.sleep(POLL_S)
        if self._moved_from is not None:
            _move_back(self._moved_from, self.folder)
        self.folder = self._moved_from = None


def ran_out(session: Path) -> bool:
    """Whether the kernel has ended a process there because memory ran out."""
    for name in EVENTS:
        with suppress(FileNotFoundError):
            counts = dict(line.split() for line in (session / name).read_text().splitlines())
            return int(counts.get("oom_kill", 0)) > 0
    return False


def own_cgroups() -> Iterator[Path]:
    """The folders of this process's memory cgroup, from /proc/self/cgroup and where the hierarchies are mounted."""
    paths: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            paths["cgroup2"] = path
        elif "memory" in controllers.split(","):
            paths["cgroup"] = path
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, mounted_at = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind in paths and (kind == "cgroup2" or "memory" in options.split(",")):
            own = Path(paths[kind])
            yield Path(mounted_at) / (own.relative_to(root) if own.is_relative_to(root) else own.relative_to("/"))


def _sweep(own: Path) -> None:
    """Remove what services left that were killed."""
    for folder in own.glob("sandbox-*-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            for each in (*folder.glob("*/"), folder):
                _removed(each)


def _move_aside(own: Path, folder: Path) -> None:
    """Version 2 hands a controller down only from a cgroup without processes: ours goes into one of its own."""
    service = _aside(folder)
    service.mkdir()
    (service / "cgroup.procs").write_text(str(os.getpid()))
    (own / CONTROLLED).write_text("+memory")
    (folder / CONTROLLED).write_text("+memory")


def _move_back(own: Path, folder: Path) -> None:
    for name, text in ((CONTROLLED, "-memory"), ("cgroup.procs", str(os.getpid()))):
        with suppress(OSError):  # others may use the controller below it
            (own / name).write_text(text)
    _removed(_aside(folder))


def _aside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-service")


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # a process that was killed is not gone yet
        return False
    return True
