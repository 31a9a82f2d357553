"""End a process group when whoever started this has gone: python group_guard.py <group>, with a pipe as standard input.

A server's workers do not end with it: the kernel's signal at a parent's death reaches the server's first process alone.
The pipe closes when its other end's process does, even by SIGKILL; a byte through it says that there is nothing to end.
No imports of ours: it starts beside every server.
"""

import os
import signal
import sys
from contextlib import suppress


def main(group: int) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # it must outlive whoever is sent these
    if not os.read(0, 1):
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
