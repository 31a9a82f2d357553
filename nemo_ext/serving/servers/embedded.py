"""Our own CPU server for small Llama checkpoints (nemo_ext/serving/embedded); the default where there is no GPU."""

import importlib.metadata
import socket
from collections.abc import Callable

from nemo_ext.models.model import Model
from nemo_ext.serving.embedded.config import Config
from nemo_ext.serving.launch.server_metrics import ServerMetrics, from_prometheus

METRICS = "/metrics"
RENDERED_TEXT = STOP_TOKEN_IDS = True


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
