"""Runs one of the launchers where jobs are submitted. Standard library only; started over ssh, never by hand.

Reads from stdin one line of JSON, {"argv": ["launchers/run.py", ...], "env": {"HF_TOKEN": "..."}}: secrets are in no
command line and no file. When stdin ends (Ctrl-C at the other end, a connection that is gone), the launcher is
interrupted as if by Ctrl-C. The exit code is the launcher's.
"""

import json
import os
import signal
import subprocess
import sys
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def interrupt_at_end(child: "subprocess.Popen[bytes]") -> None:
    while sys.stdin.buffer.read(1):
        pass
    if child.poll() is None:
        child.send_signal(signal.SIGINT)


def main() -> int:
    request = json.loads(sys.stdin.buffer.readline())
    child = subprocess.Popen(
        [sys.executable, *request["argv"]], cwd=ROOT, env={**os.environ, **request["env"]}, stdin=subprocess.DEVNULL
    )
    threading.Thread(target=interrupt_at_end, args=(child,), daemon=True).start()
    code = child.wait()
    sys.stdout.flush()
    # the thread may be reading stdin, which Python would wait for at its end
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
