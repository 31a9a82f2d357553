"""The service's side of one session: a process made by the fork server, which runs one block at a time."""

import asyncio
import json
import os
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nemo_ext.sandbox.inside.repl import CLASSES, MEMORY
from nemo_ext.sandbox.memory_cgroups import MemoryCgroups, ran_out
from nemo_ext.sandbox.output import Output
from nemo_ext.sandbox.processes import Processes, pid_of

TIMEOUT, OUTPUT_LIMIT, DIED = "timeout", "output_limit", "died"
READ_BYTES = 1 << 16
START_S = 60.0
STOP_S = 5.0
POLL_S = 0.001
CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group


@dataclass(frozen=True)
class Result:
    """How a block ended, and what it printed."""

    ended: str
    """One of repl.CLASSES, timeout, output_limit or died."""
    lost: bool
    """The session ended with this block."""
    output: str
    truncated: bool
    """A middle part of the output is missing."""
    seconds: float


class Session:
    """Stopped (SIGSTOP) between blocks, so that a thread that a block left behind uses no time.

    `processes` is None without isolation, where a session's processes cannot be told from the host's. A session that is
    alive is in `alive_sessions`, by its id in `processes`.
    """

    def __init__(
        self,
        channel: socket.socket,
        output_fd: int,
        max_output_bytes: int,
        processes: Processes | None,
        alive_sessions: "dict[str, Session]",
        cgroups: MemoryCgroups | None = None,
    ) -> None:
        self.channel = channel
        self.processes = processes
        self.alive_sessions = alive_sessions
        self.output_fd = output_fd
        self.max_output_bytes = max_output_bytes
        self.pid = 0
        self._pidfd: int | None = None
        self._cgroups = cgroups
        self._cgroup: Path | None = None
        self._ran_out = False
        self._ending: asyncio.Future[tuple[str, bool]] | None = None

    async def ready(self) -> None:
        """Wait until it is isolated.

        Raises:
            OSError: it could not be; TimeoutError is one.
        """
        loop = asyncio.get_running_loop()
        answered = asyncio.Event()
        loop.add_reader(self.channel.fileno(), answered.set)
        try:
            await asyncio.wait_for(answered.wait(), START_S)
        finally:
            loop.remove_reader(self.channel.fileno())
        message, control, _, _ = self.channel.recvmsg(4096, socket.CMSG_SPACE(CREDENTIALS.size))
        answer = json.loads(message) if message else {"failed": "the session ended while it started"}
        if "failed" in answer:
            raise OSError(answer["failed"])
        self._open(CREDENTIALS.unpack(control[0][2])[0])

    def _open(self, sender: int) -> None:
        """Remember the process with that id, which the kernel says has sent `ready` and which has run no block yet."""
        self._pidfd = os.pidfd_open(sender)
        self.pid = pid_of(self._pidfd)
        if self._cgroups is not None:
            self._cgroup = self._cgroups.enclose(sender)
        with suppress(BlockingIOError):
            self.channel.recv(1)  # only a channel whose other end has closed gives anything, namely nothing
            raise ProcessLookupError("the session ended while it started")
        self.alive_sessions[str(self.pid)] = self
        asyncio.get_running_loop().add_reader(self._pidfd, self._forget)

    def _forget(self) -> None:
        """It has ended, and its id may soon be another's."""
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
        if self.alive_sessions.get(str(self.pid)) is self:
            del self.alive_sessions[str(self.pid)]
        if self._cgroups is not None and self._cgroup is not None:
            self._ran_out = self._out_of_memory()
            self._cgroups.remove(self._cgroup)
            self._cgroup = None

    def _out_of_memory(self) -> bool:
        """Whether the kernel has ended one of its processes for that."""
        return self._ran_out or (self._cgroup is not None and ran_out(self._cgroup))

    @property
    def alive(self) -> bool:
        if self._pidfd is None:
            return False
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        return not ended.poll(0)

    async def execute(self, code: str, timeout_s: float) -> Result:
        """Run one block; if the result says `lost`, or this is cancelled, the session is gone afterwards."""
        started = time.monotonic()
        output = Output()
        self._read(Output())  # a thread may have printed after the end of the block before
        try:
            ended, lost = await self._run(code, output, timeout_s)
            if not lost and not await self._stands_still():
                ended, lost = DIED, True
            if ended != OUTPUT_LIMIT and self._out_of_memory():
                ended, lost = MEMORY, True
        except BaseException:
            self.kill()
            raise
        with suppress(OSError):  # killed while it ran, and so closed
            self._read(output)
        if lost:
            self.kill()
        return Result(ended, lost, *output.text(), time.monotonic() - started)

    async def _run(self, code: str, output: Output, timeout_s: float) -> tuple[str, bool]:
        loop = asyncio.get_running_loop()
        self._ending = loop.create_future()
        self._signal(signal.SIGCONT)
        try:
            self.channel.send(b"x" + code.encode(errors="replace"))
        except OSError:  # it died between two blocks
            return DIED, True
        loop.add_reader(self.output_fd, self._read, output)
        loop.add_reader(self.channel.fileno(), self._reply)
        try:
            return await asyncio.wait_for(self._ending, timeout_s)
        except TimeoutError:
            return TIMEOUT, True
        finally:
            self._stop_reading()

    async def _stands_still(self) -> bool:
        """Stop it, and say whether its reply may be believed: every other process has ended, and it replied once.
        Process 1 sees to that before it replies; a reply that a block forged comes earlier.

        From the signal on its only thread starts no process: the kernel checks for signals before it makes one. Of
        several threads only one knows of the signal at first, so these are waited for, and looked at again: a process
        that woke them and ended in between has left them running. One that wakes itself is for Sessions.watch.
        """
        self._signal(signal.SIGSTOP)
        if self.processes is None:
            return True
        try:
            alone = self.processes.one_thread(self.pid)
            if not (alone or await self._stopped(self.processes)):
                return False
            left = self.processes.left_behind(self.pid, self.alive_sessions)
            return not left and (alone or self.processes.stopped(self.pid)) and self._silent()
        except OSError:  # it was killed, or the fork server was
            return False

    async def _stopped(self, processes: Processes) -> bool:
        deadline = time.monotonic() + STOP_S
        while not processes.stopped(self.pid):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_S)
        return True

    def _silent(self) -> bool:
        try:
            self.channel.recv(1)
        except BlockingIOError:
            return True
        return False

    def _stop_reading(self) -> None:
        if self.channel.fileno() >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self.output_fd)
            loop.remove_reader(self.channel.fileno())

    def _end(self, ended: str, lost: bool) -> None:
        if self._ending is not None and not self._ending.done():
            self._ending.set_result((ended, lost))

    def _reply(self) -> None:
        """What arrives may be forged by the block, which can so lie about its own end and no more."""
        asyncio.get_running_loop().remove_reader(self.channel.fileno())  # a second one is not to be overlooked
        try:
            ended = json.loads(self.channel.recv(4096))["class"]
        except Exception:  # noqa: BLE001  a block that forges one may make the parser fail in any way
            ended = DIED
        if isinstance(ended, str) and ended in CLASSES:
            self._end(ended, lost=False)
        else:
            self._end(DIED, lost=True)

    def _read(self, output: Output) -> None:
        """Everything written so far, or up to the limit."""
        with suppress(BlockingIOError):
            while data := os.read(self.output_fd, READ_BYTES):
                output.add(data)
                if output.total > self.max_output_bytes:
                    self._end(OUTPUT_LIMIT, lost=True)
                    return

    def exceeded_memory(self) -> None:
        """Its processes together hold too much: end the block that runs."""
        self._end(MEMORY, lost=True)

    def _signal(self, signum: int) -> None:
        if self._pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)

    def kill(self) -> None:
        """End it, with every process it started, now. A block that is running ends as `died`."""
        self._signal(signal.SIGKILL)
        self._end(DIED, lost=True)
        if self.channel.fileno() >= 0:
            self._stop_reading()
            self.channel.close()
            os.close(self.output_fd)
            self.output_fd = -1  # the number may soon be another session's
        self._forget()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
