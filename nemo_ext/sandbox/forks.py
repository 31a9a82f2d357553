"""Starts the fork server in the strongest isolation that works here, and gets sessions from it."""

import asyncio
import logging
import os
import shutil
import socket
import subprocess
import tempfile
from typing import IO

from nemo_ext.sandbox import launch
from nemo_ext.sandbox.config import SandboxConfig
from nemo_ext.sandbox.memory_cgroups import MemoryCgroups
from nemo_ext.sandbox.processes import Processes
from nemo_ext.sandbox.session import Session

log = logging.getLogger(__name__)

START_S = 120.0  # imports the preloaded modules
RETRY_S = 0.01
KERNEL_MB = 64  # of a session's memory cgroup, beyond what its own limits allow: stacks, page tables, pipes
# Run in a session before the service says it is ready: a kernel or container that ignores a limit must not be trusted.
PROBE = """
import os, socket, time
assert os.getpid() == 1, "it shares the host's processes"
assert not os.listdir("/proc"), "it sees /proc"
for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
    try:
        socket.socket(family, socket.SOCK_DGRAM).connect((address, 9))  # sends nothing, only looks for a way
    except OSError:
        continue
    raise AssertionError("it has a network")
try:
    socket.socket(40, socket.SOCK_STREAM)  # AF_VSOCK, which leads to the host past the network namespace
except OSError:
    pass
else:
    raise AssertionError("it may open sockets of every family")
assert not any(os.access(folder, os.W_OK) for folder in ("/", "/usr", "/dev")), "it may write outside its scratch"
try:
    for _ in range(LIMIT):
        if os.fork() == 0:
            time.sleep(60)
except BlockingIOError:
    pass
else:
    raise AssertionError("it may start more processes than the limit")
"""


class ForkServer:
    """`isolation` is empty until `start` has found one."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.isolation = ""
        self._folder: str | None = None
        self._closed = False
        self._starting = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self.processes: Processes | None = None
        self._cgroups: MemoryCgroups | None = None
        self.sessions: dict[str, Session] = {}
        """Live sessions, by the id of their process 1."""
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  open as long as we are

    async def start(self) -> None:
        """Raises ValueError when no isolation works, with what each one said, or a module cannot be preloaded."""
        failures = []
        for isolation in launch.candidates(self.config):
            try:
                await self._launch(isolation)
                if isolation != "none":
                    self._cgroups = self._cgroups or MemoryCgroups(self._cgroup_bytes())
                    await self._probe()
            except OSError as error:
                self._end()
                failures.append(f"  {isolation}: {error}")
                log.warning("isolation by %s does not work here: %s", isolation, error)
                continue
            self.isolation = isolation
            return
        raise ValueError(
            "nothing here can isolate the code that models write:\n"
            + "\n".join(failures)
            + "\nGive the container user namespaces (docker: --security-opt seccomp=unconfined"
            " --security-opt apparmor=unconfined) or install bubblewrap; or set sandbox.allow_unisolated=true to run"
            " the code with this process's rights."
        )

    def _cgroup_bytes(self) -> int:
        return (self.config.memory_mb + 2 * self.config.scratch_mb + KERNEL_MB) << 20

    async def _launch(self, isolation: str) -> None:
        if isolation == "none" and self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="sandbox-")
        scratch = self._folder or launch.WRITABLE
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._stderr.seek(0)
            self._stderr.truncate()
            self._process = subprocess.Popen(
                launch.command(isolation, self.config, theirs.fileno(), scratch),
                env=launch.environment(),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                cwd="/",
                start_new_session=True,  # a Ctrl-C in the terminal is the service's to handle
            )
        ours.setblocking(False)
        self._channel = ours
        answer = await asyncio.wait_for(self._answer(ours), START_S)
        if answer.startswith(b"sandbox.preload"):
            raise ValueError(answer.decode(errors="replace"))
        if answer != b"ready":
            raise OSError(self._error())

    async def _answer(self, channel: socket.socket) -> bytes:
        """Its first message; with `ready` it hands over its /proc."""
        arrived = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(channel.fileno(), arrived.set)
        try:
            await arrived.wait()
        finally:
            loop.remove_reader(channel.fileno())
        answer, descriptors, _, _ = socket.recv_fds(channel, 4096, 1)
        if descriptors:
            self.processes = Processes(descriptors[0])
        return answer

    def _error(self) -> str:
        """The last line that it wrote to stderr before it ended."""
        assert self._process is not None, "called after a start"
        self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with exit code {self._process.returncode}"

    async def _probe(self) -> None:
        session = await self._fork()
        try:
            result = await session.execute(PROBE.replace("LIMIT", str(self.config.max_processes)), START_S)
        finally:
            session.kill()
        if result.ended != "ok":
            raise OSError(f"its check failed ({result.ended}): {result.output.strip()}")

    async def session(self) -> Session:
        """A fresh one; the fork server is started again if it has died.

        Raises:
            OSError: the session could not be isolated.
        """
        async with self._starting:
            if self._closed:
                raise OSError("the service is stopping")
            if self._process is None or self._process.poll() is not None:
                log.error("the fork server ended, and with it every session: %s", self._error())
                self._end()
                await self._launch(self.isolation)
        return await self._fork()

    async def _fork(self) -> Session:
        assert self._channel is not None and self.processes is not None, "called after a start"
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output, writable = os.pipe()
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        os.set_blocking(output, False)
        processes = None if self.isolation == "none" else self.processes
        session = Session(ours, output, self.config.max_output_kb << 10, processes, self.sessions, self._cgroups)
        try:
            while not self._sent([theirs.fileno(), writable]):
                await asyncio.sleep(RETRY_S)
            theirs.close()
            await session.ready()
        except BaseException:
            session.kill()
            raise
        finally:
            theirs.close()
            os.close(writable)
        return session

    def _sent(self, descriptors: list[int]) -> bool:
        assert self._channel is not None, "called after a start"
        try:
            socket.send_fds(self._channel, [b"fork"], descriptors)
        except BlockingIOError:  # it is busy with others
            return False
        return True

    def _end(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self.processes is not None:
            self.processes.close()
            self.processes = None

    def close(self) -> None:
        """End the fork server and all sessions."""
        self._closed = True
        self._end()
        if self._cgroups is not None:
            self._cgroups.close()
        self._stderr.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
