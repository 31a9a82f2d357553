"""TensorRT-LLM: `trtllm-serve` with the PyTorch backend, on one node or several.

The 405B teacher in FP8 on one node of eight 80 GB GPUs: tp_size 8. In BF16 (810 GB of weights) on two: tp_size 8,
pp_size 2, nodes 2. It has 8 key-value heads, so tp_size 16 would hold each of them twice.

No key is in both the command line and the YAML file: which of the two wins differs between releases.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_ext.model import Model, chat_template_path
from nemo_ext.serving.server import Server


@dataclass(kw_only=True)
class Config(Server):
    kind: str = "trtllm"
    tp_size: int = 1
    """GPUs each layer is split over."""
    pp_size: int = 1
    """Groups of layers, one after another; GPUs used are tp_size * pp_size."""
    nodes: int = 1
    """Nodes of one replica; above 1 it starts under srun, one task per GPU, behind `launch_prefix`."""
    max_batch_size: int = 256
    """Sequences decoded together."""
    max_num_tokens: int = 8192
    """Tokens of one step, prompts and decodes together."""
    max_seq_len: int | None = None
    """Tokens; None: the model's context length."""
    kv_cache_dtype: str = "auto"
    """auto or fp8."""
    kv_cache_free_gpu_memory_fraction: float = 0.9
    """Share of the memory left after the weights."""
    enable_chunked_prefill: bool = True
    """Let a long prompt enter in pieces between decodes."""
    enable_block_reuse: bool = True
    """Reuse the cache of a shared prefix, such as few-shot examples."""
    cuda_graph_padding: bool = True
    """Round batches up to a captured size, up to max_batch_size."""

    def __post_init__(self) -> None:
        if self.nodes < 1 or (self.tp_size * self.pp_size) % self.nodes:
            gpus = self.tp_size * self.pp_size
            raise ValueError(f"server.nodes={self.nodes}; it must divide tp_size * pp_size = {gpus}")


def gpus_per_node(cfg: Config) -> int:
    return cfg.tp_size * cfg.pp_size // cfg.nodes


def launch_prefix(cfg: Config) -> list[str]:
    """What goes before the command that every one of the tp_size * pp_size srun tasks runs.

    It starts that command on the first task only and makes workers of the others. It expands its arguments without
    quoting, so none may hold a space.
    """
    return ["trtllm-llmapi-launch"] if cfg.nodes > 1 else []


def options(cfg: Config, model: Model) -> dict[str, Any]:
    """The file --extra_llm_api_options names."""
    return {
        "enable_chunked_prefill": cfg.enable_chunked_prefill,
        "cuda_graph_config": {"enable_padding": cfg.cuda_graph_padding, "max_batch_size": cfg.max_batch_size},
        "kv_cache_config": {
            "dtype": cfg.kv_cache_dtype,
            "enable_block_reuse": cfg.enable_block_reuse,
            "free_gpu_memory_fraction": cfg.kv_cache_free_gpu_memory_fraction,
        },
        "enable_iter_perf_stats": True,  # /metrics is empty without it
        "print_iter_log": False,
    }


def command(cfg: Config, model: Model, host: str, port: int, options_path: Path | None = None) -> list[str]:
    """Raises ValueError for an argument with a space, which the multi-node launcher would split."""
    assert options_path is not None, "the wrapper writes options() first"
    template = chat_template_path(model)
    argv = [
        "trtllm-serve", model.hf_path,
        "--backend", "pytorch",
        "--host", host,
        "--port", str(port),
        "--tp_size", str(cfg.tp_size),
        "--pp_size", str(cfg.pp_size),
        "--gpus_per_node", str(gpus_per_node(cfg)),
        "--max_batch_size", str(cfg.max_batch_size),
        "--max_num_tokens", str(cfg.max_num_tokens),
        "--max_seq_len", str(cfg.max_seq_len or model.context_length),
        "--extra_llm_api_options", str(options_path),
        *(["--chat_template", str(template)] if template else []),
    ]  # fmt: skip
    for argument in argv:
        if any(character.isspace() for character in argument):
            raise ValueError(f"trtllm: {argument!r} holds a space, which trtllm-llmapi-launch would split; rename it")
    return argv
