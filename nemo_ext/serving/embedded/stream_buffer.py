"""Pieces of streamed answers that their clients have not read yet, of which a server holds a limited number."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from nemo_ext.serving.embedded.sequence import Delta

MAX_PIECES = 65_536
"""Limit over all streams together; with 20 log-probabilities each some 120 MB."""
MAX_OWN = 256
"""A stream that holds fewer goes on even then."""


@dataclass
class Held:
    """How many pieces all streams of a server hold."""

    pieces: int = 0


class StreamBuffer:
    """One stream's. When there are too many, its pieces are let go and `on_overflow` is called, once."""

    def __init__(self, held: Held, on_overflow: Callable[[], None]) -> None:
        self._held = held
        self._on_overflow = on_overflow
        self._queue: asyncio.Queue[Delta | None] = asyncio.Queue()
        self.overflown = False

    def put(self, delta: Delta) -> None:
        if self.overflown:
            return
        self._queue.put_nowait(delta)
        self._held.pieces += 1
        if self._held.pieces > MAX_PIECES and self._queue.qsize() > MAX_OWN:
            self.close()
            self.overflown = True
            self._queue.put_nowait(None)  # wakes whoever waits
            self._on_overflow()

    def take(self) -> Delta | None:
        """The next piece; None: there is none."""
        if self._queue.empty():
            return None
        return self._taken(self._queue.get_nowait())

    async def next(self) -> Delta | None:
        """The next piece; None after an overflow."""
        return self._taken(await self._queue.get())

    def _taken(self, delta: Delta | None) -> Delta | None:
        self._held.pieces -= delta is not None
        return delta

    def close(self) -> None:
        """Let go of what nobody will read."""
        while not self._queue.empty():
            self._taken(self._queue.get_nowait())
