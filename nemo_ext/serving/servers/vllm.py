"""vLLM: `vllm serve`. One node; its own image (containers/images.yaml).

Over several nodes vLLM wants a Ray cluster, or a process on each (--nnodes, --node-rank, --master-addr, --headless).
Nothing here starts either: take trtllm or sglang, or start it yourself and use `external`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemo_ext.models.model import Model, chat_template_path
from nemo_ext.serving.launch.server_metrics import ServerMetrics, from_prometheus
from nemo_ext.serving.server import GpuServer, Place

READY = "/health"
VERSION = ("/version",)
METRICS = "/metrics"
RENDERED_TEXT = STOP_TOKEN_IDS = True


@dataclass(kw_only=True)
class Config(GpuServer):
    kind: str = "vllm"
    gpu_memory_utilization: float = 0.9
    """Share of each GPU's memory for weights, buffers and cache."""
    enable_prefix_caching: bool = True
    """Reuse the cache of a shared prefix, such as few-shot examples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nodes > 1:
            raise ValueError(
                f"server.nodes={self.nodes}: vllm is started on one node here. Use "
                "server=trtllm_405b_bf16 or server=sglang, or start it yourself and use server=external"
            )
        if not 0 < self.gpu_memory_utilization < 1:
            raise ValueError(
                f"server.gpu_memory_utilization={self.gpu_memory_utilization}; it must be between 0 and 1"
            )

    def kv_gib(self, total: float, weights: float, buffers: float) -> float:
        return total * self.gpu_memory_utilization - weights - buffers


def options(cfg: Config, model: Model) -> dict[str, Any]:
    return {}


def command(cfg: Config, model: Model, place: Place) -> list[str]:
    template = chat_template_path(model)
    caching = "--enable-prefix-caching" if cfg.enable_prefix_caching else "--no-enable-prefix-caching"
    return [
        "vllm", "serve", model.hf_path,
        "--host", place.host,
        "--port", str(place.port),
        "--served-model-name", model.name,
        "--tensor-parallel-size", str(cfg.tp_size),
        "--pipeline-parallel-size", str(cfg.pp_size),
        "--max-num-seqs", str(cfg.max_batch_size),
        "--max-num-batched-tokens", str(cfg.max_num_tokens),
        "--max-model-len", str(cfg.sequence_length(model)),
        "--gpu-memory-utilization", str(cfg.gpu_memory_utilization),
        "--kv-cache-dtype", cfg.kv_cache_dtype,
        # Otherwise the checkpoint's generation_config.json sets top_k and others where a request leaves them out.
        "--generation-config", "vllm",
        caching,
        *(["--chat-template", str(template)] if template else []),
    ]  # fmt: skip


def environment(cfg: Config, environ: Mapping[str, str]) -> dict[str, str]:
    return dict(environ)


def read_metrics(body: bytes, before: ServerMetrics | None) -> ServerMetrics:
    """Prometheus text."""
    return from_prometheus(
        body,
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:generation_tokens_total",
    )
