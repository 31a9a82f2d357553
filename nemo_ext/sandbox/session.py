"""The service's side of one session: a process made by the fork server, which runs one block at a time."""

import asyncio
import json
import os
import select
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass

from nemo_ext.sandbox import memory
from nemo_ext.sandbox.inside.repl import CLASSES, MEMORY
from nemo_ext.sandbox.output import Output

TIMEOUT, OUTPUT_LIMIT, DIED = "timeout", "output_limit", "died"
READ_BYTES = 1 << 16
START_S = 60.0


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
    """Stopped (SIGSTOP) between blocks, so that a thread that a block left behind uses no time."""

    def __init__(self, channel: socket.socket, output_fd: int, max_output_bytes: int) -> None:
        self.channel = channel
        self.output_fd = output_fd
        self.max_output_bytes = max_output_bytes
        self.pid = 0
        self._pidfd: int | None = None
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
        message, descriptors, _, _ = socket.recv_fds(self.channel, 4096, 1)
        if not descriptors:
            raise OSError(json.loads(message)["failed"] if message else "the session ended while it started")
        self._pidfd = descriptors[0]
        self.pid = memory.pid_of(self._pidfd)

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
        except BaseException:
            self.kill()
            raise
        with suppress(OSError):  # killed while it ran, and so closed
            self._read(output)
        if lost:
            self.kill()
        else:
            self._signal(signal.SIGSTOP)
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
        try:
            ended = json.loads(self.channel.recv(4096))["class"]
        except (OSError, ValueError, KeyError, TypeError):
            ended = DIED
        if ended in CLASSES:
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
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
