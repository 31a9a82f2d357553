"""/metrics in the Prometheus text format."""

from collections import Counter
from collections.abc import Iterator

from nemo_ext.serving.embedded.engine import Engine

PREFIX = "embedded_"


def prometheus_text(engine: Engine, replies_by_status: Counter[int]) -> str:
    return "\n".join(_lines(engine, replies_by_status)) + "\n"


def _lines(engine: Engine, replies_by_status: Counter[int]) -> Iterator[str]:
    counters = engine.counters
    for name, value, meaning in (
        ("steps_total", counters.steps, "Engine steps."),
        ("failed_steps_total", counters.failed_steps, "Steps that raised and failed their batch."),
        ("prompt_tokens_total", counters.prompt_tokens, "Prompt tokens computed; shared prompts count once."),
        ("generated_tokens_total", counters.generated_tokens, "Sampled tokens."),
    ):
        yield from (f"# HELP {PREFIX}{name} {meaning}", f"# TYPE {PREFIX}{name} counter", f"{PREFIX}{name} {value}")
    gauges: tuple[tuple[str, float, str], ...] = (
        ("running", len(engine.slots), "Sequences in a slot."),
        ("waiting", len(engine.waiting), "Sequences waiting for a slot."),
        ("slots", engine.slots.size, "Slots."),
        ("kv_cache_usage", engine.model.pages.usage, "Share of the key-value cache's pages in use, 0 to 1."),
    )
    for name, gauge, meaning in gauges:
        yield from (f"# HELP {PREFIX}{name} {meaning}", f"# TYPE {PREFIX}{name} gauge", f"{PREFIX}{name} {gauge}")
    yield f"# HELP {PREFIX}replies_total Replies to generation requests by status."
    yield f"# TYPE {PREFIX}replies_total counter"
    for status, count in sorted(replies_by_status.items()):
        yield f'{PREFIX}replies_total{{status="{status}"}} {count}'
