"""Our own CPU server for small Llama checkpoints (nemo_ext/serving/embedded); the default where there is no GPU."""

import importlib.metadata
import socket
from collections.abc import Callable
from dataclasses import dataclass

from nemo_ext.model import Model
from nemo_ext.serving.server import Server
from nemo_ext.serving.server_metrics import ServerMetrics, from_prometheus

METRICS = "/metrics"
RENDERED_TEXT = STOP_TOKEN_IDS = True
DTYPES = ("float64", "float32")


@dataclass(kw_only=True)
class Config(Server):
    kind: str = "embedded"
    max_batch_size: int = 128
    """Sequences decoded together."""
    max_queue: int = 4096
    """Sequences waiting for a slot; more are answered 429."""
    max_prefill: int = 32
    """Distinct prompts admitted in one step."""
    threads: int = 1
    """torch threads; a second one pays only on an idle machine, and its results may differ from one thread's."""
    compute_dtype: str = "float32"
    """In both a sequence gets the same bits alone and in any batch, so that reruns sample the same tokens; checked when
    the server starts, which takes float64 where float32 fails. float64: half as fast, and closer to the exact result."""
    context_length: int | None = None
    """Tokens; None: the model's. The key-value cache takes memory only as far as sequences reach."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compute_dtype not in DTYPES:
            raise ValueError(f"server.compute_dtype={self.compute_dtype!r}; it may be one of {DTYPES}")


def run(cfg: Config, model: Model, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve in this process on a bound socket until a signal; imports torch only here."""
    from nemo_ext.serving.embedded import run as process

    process.run(cfg, model, listener, on_ready)


def version() -> str:
    """Torch's: it decides what is sampled."""
    return f"torch {importlib.metadata.version('torch')}"


def read_metrics(body: bytes, before: ServerMetrics | None) -> ServerMetrics:
    """Prometheus text. The cache has no fixed size."""
    return from_prometheus(
        body, "embedded_running", "embedded_waiting", "embedded_kv_cache_usage", "embedded_generated_tokens_total"
    )
