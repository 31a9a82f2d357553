"""Log a server's load, from whatever its kind publishes, as one line every so often.

    load: 231 running, 12 waiting, KV cache 87 %, 3,105 tokens/s

What cannot be read is left out; nothing here ends a server.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from nemo_ext.records.files import write_json_atomic

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ServerMetrics:
    """None: the server does not say."""

    running: int | None = None
    """Requests being decoded."""
    waiting: int | None = None
    """Requests in the server's queue."""
    kv_cache_usage: float | None = None
    """Share of the cache that is in use, 0 to 1."""
    generated_tokens: int | None = None
    """Since the server started."""


Reader = Callable[[bytes, ServerMetrics | None], ServerMetrics]
"""The body of a reply, and what the one before said."""


def prometheus(body: bytes) -> dict[str, list[float]]:
    """Metric name -> its values, one per set of labels, of the Prometheus text format; other lines are skipped."""
    values: dict[str, list[float]] = {}
    for line in body.decode(errors="replace").splitlines():
        name, labelled, rest = line.strip().partition("{")
        if not labelled:
            name, _, rest = line.strip().partition(" ")
        try:
            value = float(rest.rpartition("}")[2].split()[0])
        except (IndexError, ValueError):
            continue
        if not name.startswith("#") and math.isfinite(value):
            values.setdefault(name, []).append(value)
    return values


def from_prometheus(body: bytes, running: str, waiting: str, kv_cache_usage: str, generated: str) -> ServerMetrics:
    """The metrics of these names. Of a gauge that several workers report, the highest: each of them sees every request."""
    found = prometheus(body)
    highest = {name: max(values) for name, values in found.items()}
    return ServerMetrics(
        running=int(highest[running]) if running in found else None,
        waiting=int(highest[waiting]) if waiting in found else None,
        kv_cache_usage=highest.get(kv_cache_usage),
        generated_tokens=int(sum(found[generated])) if generated in found else None,
    )


def describe(now: ServerMetrics, before: ServerMetrics | None, seconds: float) -> str:
    parts = [f"{now.running:,} running"] if now.running is not None else []
    parts += [f"{now.waiting:,} waiting"] if now.waiting is not None else []
    parts += [f"KV cache {now.kv_cache_usage:.0%}"] if now.kv_cache_usage is not None else []
    if before and now.generated_tokens is not None and before.generated_tokens is not None and seconds > 0:
        parts.append(f"{max(0, now.generated_tokens - before.generated_tokens) / seconds:,.0f} tokens/s")
    return ", ".join(parts)


def watch(get: Callable[[], bytes], read: Reader, interval_s: float, path: Path) -> threading.Thread:
    """Log a line every `interval_s` from now on, in a thread that ends with the process, and write `path`:
    {"running": 231, "waiting": 12, "kv_cache_usage": 0.87, "generated_tokens": 1204331, "time": 1700000000.0}"""
    thread = threading.Thread(target=_watch, args=(get, read, interval_s, path), daemon=True, name="server-metrics")
    thread.start()
    return thread


def _watch(get: Callable[[], bytes], read: Reader, interval_s: float, path: Path) -> None:
    before: ServerMetrics | None = None
    said, asked = "", time.monotonic()
    while True:
        time.sleep(interval_s)
        try:
            now = read(get(), before)
            text = describe(now, before, time.monotonic() - asked)
            before, asked = now, time.monotonic()
            write_json_atomic(path, {**asdict(now), "time": time.time()})
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            text = f"unknown: {type(error).__name__}: {error}"
        if text and text != said:  # an idle server says so once
            log.info("load: %s", text)
        said = text
