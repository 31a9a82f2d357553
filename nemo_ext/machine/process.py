"""Processes that end with the one that started them."""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(signum: int) -> None:
    """Ask the kernel to send `signum` to this process when its parent ends, even by SIGKILL. Linux only.

    A launcher that is killed must not leave stages behind that write beside the rerun.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)
    if os.getppid() == 1 and os.environ.get("LAUNCHER_PID") not in (None, "1"):
        raise SystemExit("the launcher ended before this process began")
