"""Processes that end when the one that started them does, even by SIGKILL; of what they start, see group_guard.py."""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable

from nemo_ext.machine.process import PR_SET_PDEATHSIG

GRACE_S = 12.0  # more than child.STOP_S
POLL_S = 0.5

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(signum: int = signal.SIGKILL) -> Callable[[], None]:
    """A function for subprocess's preexec_fn: the kernel sends the child `signum` when the thread that started it ends."""
    parent = os.getpid()

    def in_child() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return in_child


def exit_with_parent() -> None:
    """End this process once its parent is gone.

    By watching the parent's id: the kernel's signal follows the parent's *thread*, and a launcher may start services
    from a thread that ends before they do.
    """
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True, name="exit-with-parent").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(POLL_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)
