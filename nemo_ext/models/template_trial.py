"""Try a chat template in a process with limits of its own: it came with a downloaded model.

Jinja's sandbox keeps a template from files and code, but not from loops and texts without end, at which a stage would sit
until somebody stopped it.
"""

import os
import resource
import time
from collections.abc import Callable
from typing import Any

import psutil

CPU_SECONDS, BYTES = 10, 2**30
"""What rendering a conversation of one question and one answer may take, beyond what this process has."""
WAIT_SECONDS = 60
_TOO_LARGE = 3
MESSAGES = [{"role": "user", "content": "What is 1+1?"}, {"role": "assistant", "content": "It is 2."}]


def within_limits(render: Callable[[list[dict[str, str]]], Any], name: str) -> None:
    """Render MESSAGES in a child process, where the limits hold. A template may refuse them: that is not a fault.

    Raises:
        ValueError: it takes more time or memory than any template needs.
    """
    child = os.fork()
    if child == 0:
        os._exit(_try(render))
    status = _wait(child)
    if status is None or os.WIFSIGNALED(status):
        raise ValueError(
            f"{name} does not come to an end: it took more than {CPU_SECONDS} s for one question and answer"
        )
    if os.WEXITSTATUS(status) == _TOO_LARGE:
        raise ValueError(f"{name} takes more than {BYTES >> 20} MiB of memory for one question and answer")


def _try(render: Callable[[list[dict[str, str]]], Any]) -> int:
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        most = psutil.Process().memory_info().vms + BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        render(MESSAGES)
    except MemoryError:
        return _TOO_LARGE
    except BaseException:  # noqa: BLE001 - the parent renders the same again and says what is wrong with it
        return 0
    return 0


def _wait(child: int) -> int | None:
    """The child's status; None when it had to be killed."""
    deadline = time.monotonic() + WAIT_SECONDS
    pause = 0.001
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(pause)
        pause = min(0.1, 2 * pause)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return None
