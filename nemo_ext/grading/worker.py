"""Compares answers with computer algebra in a process of its own; started by grader.py as a plain script.

Protocol, one JSON line each way: it writes "ready", then for every [predicted, expected, cpu_seconds] it reads, it
writes {"equal": bool} or {"error": "..."}. A pair that takes more CPU time than it may ends the process (SIGPROF's
default action, which no library can catch or delay), and so does one that takes more memory.
"""

import json
import logging
import os
import resource
import signal
import sys


def compare(predicted: str, expected: str) -> bool:
    """math-verify's verdict, with its own timers off: they need the main thread and stop only Python code."""
    from math_verify import parse, verify

    gold, answer = (parse(_wrap(text), parsing_timeout=0, raise_on_error=True) for text in (expected, predicted))
    return bool(gold and answer and verify(gold, answer, timeout_seconds=0, raise_on_error=True))


def _wrap(answer: str) -> str:
    return "$" + answer.strip().replace("\\$", "").replace("$", "") + "$"


def main(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    sys.stdout = sys.stderr  # a library that prints must not break the protocol
    logging.disable(logging.WARNING)  # math-verify warns on every call that its timers are off
    import math_verify  # noqa: F401  so that the import is paid before "ready"

    replies.write('"ready"\n')
    for line in sys.stdin:
        predicted, expected, cpu_seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            reply: dict[str, object] = {"equal": compare(predicted, expected)}
        except Exception as error:  # noqa: BLE001  whatever sympy raises becomes this pair's verdict
            reply = {"error": f"{type(error).__name__}: {error}"[:300]}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
