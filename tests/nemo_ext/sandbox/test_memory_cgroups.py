"""Memory cgroups of sessions. Where this machine lets nobody make one, that the service goes on without is what is shown."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_ext.sandbox import forks
from nemo_ext.sandbox.memory_cgroups import MemoryCgroups, own_cgroups, ran_out
from tests.nemo_ext.sandbox.conftest import possible, sessions_of, wait_until

MIB = 1 << 20
# unread bytes of sockets, which no limit of a process counts: some 5 MB in each of 12
SOCKETS = """
import os, socket, time
def fill():
    kept = [socket.socketpair() for _ in range(26)]
    for one, _ in kept:
        one.setblocking(False)
        try:
            while one.send(b"x" * 4096): pass
        except BlockingIOError: pass
    return kept
for _ in range(10):
    if os.fork() == 0:
        kept = fill()
        time.sleep(60)
kept = fill()
time.sleep(3)
"""


@pytest.fixture
def cgroups() -> Iterator[MemoryCgroups]:
    made = MemoryCgroups(32 * MIB)
    if made.folder is None:
        pytest.skip("this machine lets us make no memory cgroup")
    yield made
    made.close()


def test_what_a_process_holds_is_bounded_and_told(cgroups: MemoryCgroups) -> None:
    greedy = "import sys; sys.stdin.readline(); kept = bytearray(200 << 20); print(len(kept))"
    child = subprocess.Popen([sys.executable, "-c", greedy], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    folder = cgroups.enclose(child.pid)
    assert folder is not None and str(child.pid) in (folder / "cgroup.procs").read_text().split()
    assert not ran_out(folder)
    assert child.communicate(b"\n")[0] == b"" and child.returncode == -9
    assert ran_out(folder)
    cgroups.remove(folder)
    wait_until(lambda: cgroups._retry() is None and not folder.exists(), 10)


def test_folders_go_with_the_service(cgroups: MemoryCgroups) -> None:
    folder = cgroups.folder
    assert folder is not None and list(folder.glob("*/")) == []
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = folder.parent / f"sandbox-{dead.pid}-left" / "session-7"
    left.mkdir(parents=True)
    other = MemoryCgroups(32 * MIB)
    assert not left.parent.exists() and other.folder not in (None, folder)
    other.close()
    cgroups.close()
    assert not folder.exists() and cgroups.enclose(os.getpid()) is None


def test_a_place_that_is_no_cgroup_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir(mode=0o500)
    for own in (tmp_path / "none", Path("/proc/self")):
        made = MemoryCgroups(32 * MIB, own)
        assert made.folder is None and made.enclose(os.getpid()) is None
        made.close()


def test_own_cgroups_are_folders() -> None:
    assert all(place.is_absolute() for place in own_cgroups())


@pytest.mark.parametrize("isolation", ["bubblewrap", "namespaces"])
def test_kernel_memory_of_a_session_is_bounded(
    cgroups: MemoryCgroups, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    if isolation not in possible():
        pytest.skip(f"no isolation by {isolation} on this machine")
    monkeypatch.setattr(forks, "KERNEL_MB", 4)

    async def run() -> tuple[str, bool, str]:
        async with sessions_of(isolation=isolation, memory_mb=24, scratch_mb=1) as sessions:
            result, _, _ = await sessions.execute("s", SOCKETS, 30.0, [])
            after, _, _ = await sessions.execute("t", "print(6 * 7)", 30.0, [])
        return result.ended, result.lost, after.output

    assert asyncio.run(run()) == ("memory", True, "42\n")
