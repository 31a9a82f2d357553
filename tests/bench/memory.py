"""The most memory that some work takes, in this process and those it starts."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

SAMPLE_S = 0.1


class Peak:
    """Bytes of proportional set size (pages shared by processes counted once), of the whole tree."""

    bytes = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """`peak.bytes` is right after the block."""
    peak, stop = Peak(), threading.Event()
    this = psutil.Process()

    def watch() -> None:
        while not stop.wait(SAMPLE_S):
            total = 0
            for process in (this, *this.children(recursive=True)):
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            peak.bytes = max(peak.bytes, total)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()
