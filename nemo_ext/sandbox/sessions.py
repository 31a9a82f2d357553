"""All sessions of a service by name: made when first used, ended when idle, replaced when lost."""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from nemo_ext.sandbox.config import SandboxConfig
from nemo_ext.sandbox.forks import ForkServer
from nemo_ext.sandbox.session import DIED, OUTPUT_LIMIT, TIMEOUT, Result, Session

log = logging.getLogger(__name__)

NEW, KEPT, RESTORED, LOST = "new", "kept", "restored", "lost"
LOST_TEXT = "The Python session was restarted: names from earlier blocks are gone."
WATCH_S = 0.1
IDLE_EVERY = 10  # looks, until one also at what sessions without a block hold and whether they have stopped
MAX_WATCH_SHARE = 0.1  # of one core, for looking at memory


class Full(Exception):
    """max_sessions are alive."""


@dataclass
class _Entry:
    session: Session | None = None
    was_lost: bool = False
    deleted: bool = False
    last_used: float = field(default_factory=time.monotonic)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Sessions:
    def __init__(self, config: SandboxConfig, forks: ForkServer) -> None:
        self.config = config
        self.forks = forks
        self.parallel = config.max_parallel or len(os.sched_getaffinity(0))
        self.executions: Counter[str] = Counter()
        """Blocks so far by how they ended."""
        self.alive = 0
        self.running: set[Session] = set()
        self._looks = 0
        self._going: set[Session] = set()
        """Sessions that had not stopped yet, without a block, when they were last looked at."""
        self._entries: dict[str, _Entry] = {}
        self._slots = asyncio.Semaphore(self.parallel)

    async def execute(self, name: str, code: str, timeout_s: float, history: list[str]) -> tuple[Result, str, str]:
        """Run a block in session `name` and return its result, what became of the state, and a message for the model.

        The state is `new`; `kept` from the block before; `restored`, when the session was gone and the blocks in
        `history` were run again in a fresh one; or `lost`, when it was gone and there is no history.

        Raises:
            Full: there is no such session and no room for one more.
            OSError: no session could be started.
        """
        entry = self._entries.setdefault(name, _Entry())
        async with entry.lock, self._slots:
            entry.last_used = time.monotonic()
            state = await self._prepare(entry, timeout_s, history)
            result = await self._run(entry, code, timeout_s)
            entry.last_used = time.monotonic()
        self.executions[result.ended] += 1
        return result, state, self._message(result, state, timeout_s)

    async def _prepare(self, entry: _Entry, timeout_s: float, history: list[str]) -> str:
        if entry.session is not None and entry.session.alive:
            return KEPT
        self._end(entry)
        await self._start(entry)
        if not history:
            return LOST if entry.was_lost else NEW
        left_s = self.config.max_timeout_s  # for all of them: a request holds its place no longer than two blocks may
        for code in history:
            result = await self._run(entry, code, min(timeout_s, left_s))
            left_s -= result.seconds
            if result.lost or left_s <= 0:
                self._end(entry)
                await self._start(entry)
                return LOST
        return RESTORED

    async def _start(self, entry: _Entry) -> None:
        if self.alive >= self.config.max_sessions:
            raise Full
        self.alive += 1
        try:
            entry.session = await self.forks.session()
        except BaseException:
            self.alive -= 1
            raise
        if entry.deleted:
            self._end(entry)

    async def _run(self, entry: _Entry, code: str, timeout_s: float) -> Result:
        session = entry.session
        if session is None:  # deleted while this block waited
            return Result(DIED, True, "", False, 0.0)
        self.running.add(session)
        try:
            result = await session.execute(code, timeout_s)
        finally:
            self.running.discard(session)
            if not session.alive:
                self._end(entry)
        return result

    def _end(self, entry: _Entry) -> None:
        if entry.session is not None:
            entry.session.kill()
            entry.session = None
            entry.was_lost = True
            self.alive -= 1

    def delete(self, name: str) -> bool:
        """End a session, also while it runs a block; False if there is none."""
        entry = self._entries.pop(name, None)
        if entry is None:
            return False
        entry.deleted = True
        self._end(entry)
        return True

    def _message(self, result: Result, state: str, timeout_s: float) -> str:
        """What the model should know beyond what was printed; empty if nothing."""
        config = self.config
        text = {
            TIMEOUT: f"TimeoutError: the block ran longer than {timeout_s:g} s and was stopped",
            OUTPUT_LIMIT: f"The block printed more than {config.max_output_kb} KB and was stopped",
            DIED: "The Python process ended before the block did",
            "memory": f"MemoryError: the block needed more than {config.memory_mb} MB and was stopped",
        }.get(result.ended if result.lost else "", "")
        return "\n".join(line for line in (LOST_TEXT if state == LOST else "", text) if line)

    async def watch(self) -> None:
        """Forever: end sessions whose processes hold too much memory or run on without a block, and those nobody uses."""
        pause = WATCH_S
        while True:
            await asyncio.sleep(pause)
            started = time.perf_counter()
            self._check_processes()
            self._expire()
            pause = max(WATCH_S, (time.perf_counter() - started) / MAX_WATCH_SHARE)

    def _check_processes(self) -> None:
        processes = self.forks.processes
        sessions = {session.pid: session for session in self.forks.sessions.values()}
        if not sessions or processes is None:
            return
        with suppress(OSError):  # the fork server has ended; who needs it next starts another
            children = processes.children()
            self._looks += 1
            thorough = self._looks % IDLE_EVERY == 0
            watched = [pid for pid, session in sessions.items() if thorough or session in self.running]
            for pid in processes.over(watched, self.config.memory_mb << 20, children):
                self._end_for_memory(sessions[pid])
            idle = [session for session in sessions.values() if session.processes and session not in self.running]
            self._end_going([session for session in idle if children.get(session.pid)])
            if thorough:
                going = {session for session in idle if not processes.stopped(session.pid)}
                self._end_going(going & self._going)
                self._going = going

    def _end_going(self, sessions: Iterable[Session]) -> None:
        for session in sessions:
            log.warning("a session went on after its block had ended; ending it")
            session.kill()

    def _end_for_memory(self, session: Session) -> None:
        if session in self.running:
            session.exceeded_memory()
        else:
            log.warning("a session holds more than %d MB without a block; ending it", self.config.memory_mb)
            session.kill()

    def _expire(self) -> None:
        oldest = time.monotonic() - self.config.idle_s
        for name, entry in list(self._entries.items()):
            if entry.lock.locked():
                continue
            if entry.session is not None and not entry.session.alive:
                self._end(entry)
            if entry.last_used < oldest:
                log.info("session %s was idle for %g s; ending it", name, self.config.idle_s)
                if entry.session is None:
                    del self._entries[name]
                self._end(entry)

    def close(self) -> None:
        for name in list(self._entries):
            self.delete(name)
        with suppress(OSError):
            self.forks.close()
