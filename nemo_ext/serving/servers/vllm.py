"""vLLM: `vllm serve`. One node; its own image (containers/images.yaml)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_ext.model import Model, chat_template_path
from nemo_ext.serving.server import Server


@dataclass(kw_only=True)
class Config(Server):
    kind: str = "vllm"
    tp_size: int = 1
    """GPUs each layer is split over."""
    pp_size: int = 1
    """Groups of layers, one after another; GPUs used are tp_size * pp_size."""
    max_batch_size: int = 256
    """Sequences decoded together."""
    max_num_tokens: int = 8192
    """Tokens of one step, prompts and decodes together."""
    max_seq_len: int | None = None
    """Tokens; None: the model's context length."""
    gpu_memory_utilization: float = 0.9
    """Share of each GPU's memory for weights and cache."""
    kv_cache_dtype: str = "auto"
    """auto or fp8."""
    enable_prefix_caching: bool = True
    """Reuse the cache of a shared prefix, such as few-shot examples."""


def options(cfg: Config, model: Model) -> dict[str, Any]:
    return {}


def command(cfg: Config, model: Model, host: str, port: int, options_path: Path | None = None) -> list[str]:
    template = chat_template_path(model)
    caching = "--enable-prefix-caching" if cfg.enable_prefix_caching else "--no-enable-prefix-caching"
    return [
        "vllm", "serve", model.hf_path,
        "--host", host,
        "--port", str(port),
        "--served-model-name", model.name,
        "--tensor-parallel-size", str(cfg.tp_size),
        "--pipeline-parallel-size", str(cfg.pp_size),
        "--max-num-seqs", str(cfg.max_batch_size),
        "--max-num-batched-tokens", str(cfg.max_num_tokens),
        "--max-model-len", str(cfg.max_seq_len or model.context_length),
        "--gpu-memory-utilization", str(cfg.gpu_memory_utilization),
        "--kv-cache-dtype", cfg.kv_cache_dtype,
        # Otherwise the checkpoint's generation_config.json sets top_k and others where a request leaves them out.
        "--generation-config", "vllm",
        caching,
        *(["--chat-template", str(template)] if template else []),
    ]  # fmt: skip
