"""Compares answers with computer algebra in a process of its own; started by algebra.py as a plain script.

Protocol, one JSON line each way: it writes "ready", then for every [predicted, expected, cpu_seconds, both_ways] that it
reads, it writes {"equal": bool}, {"undecided": reason} or {"error": "..."}. The pairs are compared in a fork of the process
that did the imports. A pair that takes more CPU time than it may ends the fork (SIGPROF's default action, which no library
can catch or delay), and so does one that takes more memory; then {"died": signal} is written and the next fork, ready in
milliseconds, goes on.
"""

import json
import logging
import os
import resource
import signal
import sys


def compare(predicted: str, expected: str, both_ways: bool = False) -> bool | str:
    """math-verify's verdict, with its own timers off: they need the main thread and stop only Python code.

    both_ways: "not_read" where an answer cannot be read as LaTeX, "one_way" where the verdict depends on which of them is
    the known one.
    """
    from math_verify import LatexExtractionConfig, parse, verify

    only_latex = {"extraction_config": [LatexExtractionConfig()], "fallback_mode": "no_fallback"} if both_ways else {}
    gold, answer = (
        parse(_wrap(text), parsing_timeout=0, raise_on_error=True, **only_latex) for text in (expected, predicted)
    )
    if not gold or not answer:
        return "not_read" if both_ways else False
    forward = bool(verify(gold, answer, timeout_seconds=0, raise_on_error=True))
    if both_ways and forward != bool(verify(answer, gold, timeout_seconds=0, raise_on_error=True)):
        return "one_way"
    return forward


def _wrap(answer: str) -> str:
    return "$" + answer.strip().replace("\\$", "").replace("$", "") + "$"


def serve(replies: int) -> None:
    """Answer questions until there are none."""
    for line in sys.stdin:
        predicted, expected, cpu_seconds, both_ways = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            found = compare(predicted, expected, both_ways)
            reply = {"undecided": found} if isinstance(found, str) else {"equal": found}
        except Exception as error:  # noqa: BLE001  whatever sympy raises becomes this pair's verdict
            reply = {"error": f"{type(error).__name__}: {error}"[:300]}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        _write(replies, reply)


def _write(replies: int, reply: object) -> None:
    os.write(replies, json.dumps(reply).encode() + b"\n")


def main(memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.dup(sys.stdout.fileno())
    sys.stdout = sys.stderr  # a library that prints must not break the protocol
    logging.disable(logging.WARNING)  # math-verify warns on every call that its timers are off
    compare("x+1", "1+x")  # the imports, and what is only built at the first question
    _write(replies, "ready")
    while True:
        child = os.fork()
        if child == 0:
            serve(replies)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            return
        _write(replies, {"died": os.waitstatus_to_exitcode(status)})


if __name__ == "__main__":
    main(int(sys.argv[1]))
