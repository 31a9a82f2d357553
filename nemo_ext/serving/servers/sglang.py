"""SGLang: `python -m sglang.launch_server`, on one node or several; its own image (containers/images.yaml).

Over several nodes one process per node starts that node's workers; they meet at the first one's address, and the first one
listens. It draws other tokens on every run, whatever the seed, unless it is started with --enable-deterministic-inference;
it puts BOS before every text, so that rendered prompts go as token ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemo_ext.models.model import Model, chat_template_path
from nemo_ext.serving.launch.server_metrics import ServerMetrics, from_prometheus
from nemo_ext.serving.server import GpuServer, Place

READY = "/health"
VERSION = ("/server_info", "/get_server_info")  # the second is what it was called up to 0.5
METRICS = "/metrics"
STOP_TOKEN_IDS = True
KV_CACHE = {"auto": "auto", "fp8": "fp8_e4m3"}


@dataclass(kw_only=True)
class Config(GpuServer):
    kind: str = "sglang"
    mem_fraction_static: float = 0.85
    """Share of each GPU's memory for weights and cache; the rest is for buffers and CUDA graphs."""
    enable_prefix_caching: bool = True
    """Reuse the cache of a shared prefix, such as few-shot examples."""
    python: str = "python3"
    """The interpreter that has SGLang, on PATH in its image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mem_fraction_static < 1:
            raise ValueError(f"server.mem_fraction_static={self.mem_fraction_static}; it must be between 0 and 1")

    def kv_gib(self, total: float, weights: float, buffers: float) -> float:
        return min(total * self.mem_fraction_static - weights, total - weights - buffers)


def options(cfg: Config, model: Model) -> dict[str, Any]:
    return {}


def command(cfg: Config, model: Model, place: Place) -> list[str]:
    template = chat_template_path(model)
    several = ["--nnodes", str(cfg.nodes), "--node-rank", str(place.task), "--dist-init-addr", place.rendezvous]
    return [
        cfg.python, "-m", "sglang.launch_server",
        "--model-path", model.hf_path,
        "--served-model-name", model.name,
        "--host", place.host,
        "--port", str(place.port),
        "--tp-size", str(cfg.tp_size),
        "--pp-size", str(cfg.pp_size),
        "--max-running-requests", str(cfg.max_batch_size),
        "--chunked-prefill-size", str(cfg.max_num_tokens),
        "--context-length", str(cfg.sequence_length(model)),
        "--mem-fraction-static", str(cfg.mem_fraction_static),
        "--kv-cache-dtype", KV_CACHE[cfg.kv_cache_dtype],
        # Otherwise the checkpoint's generation_config.json sets what a request leaves out.
        "--sampling-defaults", "openai",
        "--enable-metrics",
        *([] if cfg.enable_prefix_caching else ["--disable-radix-cache"]),
        *(several if cfg.nodes > 1 else []),
        *(["--chat-template", str(template)] if template else []),
    ]  # fmt: skip


def environment(cfg: Config, environ: Mapping[str, str]) -> dict[str, str]:
    return dict(environ)


def read_metrics(body: bytes, before: ServerMetrics | None) -> ServerMetrics:
    """Prometheus text."""
    return from_prometheus(
        body,
        "sglang:num_running_reqs",
        "sglang:num_queue_reqs",
        "sglang:token_usage",
        "sglang:generation_tokens_total",
    )
