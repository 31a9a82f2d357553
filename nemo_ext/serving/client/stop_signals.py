"""SIGINT and SIGTERM during a call that runs an event loop: cancel it cleanly, then do what the caller set."""

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any

import uvloop

from nemo_ext.serving.client.failures import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run_until_signal(main: Coroutine[Any, Any, None]) -> None:
    """`uvloop.run(main)`; a signal cancels `main`, and once it has cleaned up the caller's own handling happens.

    That is KeyboardInterrupt for SIGINT, SystemExit(143) for SIGTERM, or the handlers the caller installed; if those
    return, Interrupted is raised. Outside the main thread, where Python delivers no signals, it is only uvloop.run.
    """
    if threading.current_thread() is not threading.main_thread():
        uvloop.run(main)
        return
    previous = {signum: signal.getsignal(signum) for signum in SIGNALS}
    received: list[int] = []
    try:
        uvloop.run(_cancellable(main, received))
    except asyncio.CancelledError:
        if not received:
            raise
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if received:
        _deliver(received[0])


async def _cancellable(main: Coroutine[Any, Any, None], received: list[int]) -> None:
    task, loop = asyncio.ensure_future(main), asyncio.get_running_loop()

    def stop(signum: int) -> None:
        received.append(signum)
        task.cancel()

    for signum in SIGNALS:
        loop.add_signal_handler(signum, stop, signum)
    try:
        await task
    finally:
        for signum in SIGNALS:
            loop.remove_signal_handler(signum)


def _deliver(signum: int) -> None:
    if signal.getsignal(signum) is signal.SIG_DFL:
        raise SystemExit(128 + signum)
    signal.raise_signal(signum)
    raise Interrupted(f"stopped by {signal.Signals(signum).name}")
