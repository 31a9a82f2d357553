"""TensorRT-LLM: `trtllm-serve` with the PyTorch backend, on one node or several.

The 405B teacher in FP8 on one node of eight 80 GB GPUs: tp_size 8. In BF16 (810 GB of weights) on two: tp_size 8,
pp_size 2, nodes 2. It has 8 key-value heads, so tp_size 16 would hold each of them twice.

Over several nodes there is one MPI task per GPU, and `trtllm-llmapi-launch` runs the command on the first and makes
workers of the others. It expands the command without quoting: hence a YAML file for what is not a plain word. No key is in
both the command line and that file: which of the two wins differs between releases.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemo_ext.models.model import Model, chat_template_path
from nemo_ext.serving.server import GpuServer, Place

READY = "/health"
VERSION = ("/version",)
METRICS = ""
"""Its /metrics answers once no step has ended for two seconds, so never under load, and every look that is given up
leaves the server a handler that goes on (github.com/NVIDIA/TensorRT-LLM/issues/4926); /prometheus/metrics has no load."""
RENDERED_TEXT = STOP_TOKEN_IDS = True
STEP_PREFIXES = ("SLURM_", "PMI_", "PMIX_", "OMPI_COMM_WORLD_", "OMPI_UNIVERSE_")
"""Variables of a job step's MPI begin so; those of the image's own MPI are not among them."""
MPI_SETTINGS = "PMIX_MCA_"


@dataclass(kw_only=True)
class Config(GpuServer):
    kind: str = "trtllm"
    kv_cache_free_gpu_memory_fraction: float = 0.9
    """Share of the memory left after the weights."""
    enable_chunked_prefill: bool = True
    """Let a long prompt enter in pieces between decodes."""
    enable_block_reuse: bool = True
    """Reuse the cache of a shared prefix, such as few-shot examples."""
    cuda_graph_padding: bool = True
    """Round batches up to a captured size, up to max_batch_size."""
    mpi: str = "pmix"
    """srun's --mpi for a server over several nodes; `srun --mpi=list` shows what a cluster has."""

    def __post_init__(self) -> None:
        super().__post_init__()
        fraction = self.kv_cache_free_gpu_memory_fraction
        if not 0 < fraction < 1:
            raise ValueError(f"server.kv_cache_free_gpu_memory_fraction={fraction}; it must be between 0 and 1")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.mpi):
            raise ValueError(f"server.mpi={self.mpi!r}; it must be a name that `srun --mpi=list` shows")

    @property
    def tasks(self) -> int:
        return self.gpus if self.nodes > 1 else 1

    @property
    def launch_mpi(self) -> str | None:
        return self.mpi if self.nodes > 1 else None

    def kv_gib(self, total: float, weights: float, buffers: float) -> float:
        return (total - weights - buffers) * self.kv_cache_free_gpu_memory_fraction


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
        "print_iter_log": False,
    }


def command(cfg: Config, model: Model, place: Place) -> list[str]:
    """Raises ValueError for what a server over several nodes cannot take."""
    assert place.options_path is not None, "the wrapper writes options() first"
    template = chat_template_path(model)
    argv = [
        "trtllm-serve", model.hf_path,
        "--backend", "pytorch",
        "--host", place.host,
        "--port", str(place.port),
        "--tp_size", str(cfg.tp_size),
        "--pp_size", str(cfg.pp_size),
        "--gpus_per_node", str(cfg.gpus_per_node),
        "--max_batch_size", str(cfg.max_batch_size),
        "--max_num_tokens", str(cfg.max_num_tokens),
        "--max_seq_len", str(cfg.sequence_length(model)),
        "--extra_llm_api_options", str(place.options_path),
        *(["--chat_template", str(template)] if template else []),
    ]  # fmt: skip
    if cfg.nodes == 1:
        return argv
    _check_for_launcher(argv, model)
    return ["trtllm-llmapi-launch", *argv]


def _check_for_launcher(argv: list[str], model: Model) -> None:
    if not model.hf_path.startswith("/"):
        raise ValueError(
            f"model.hf_path={model.hf_path!r}: a server over several nodes loads a folder that all of them see; give "
            "the whole path of one, beginning with /"
        )
    for argument in argv:
        if re.search(r"[\s*?\[\]]", argument) or not argument:
            raise ValueError(
                f"trtllm: {argument!r} holds a space or one of *?[], which trtllm-llmapi-launch would expand; rename it"
            )


def environment(cfg: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """On one node the server starts its own MPI workers, which fails where it finds itself in a Slurm step's MPI."""
    if cfg.nodes > 1:
        return dict(environ)
    return {
        key: value
        for key, value in environ.items()
        if key.startswith(MPI_SETTINGS) or not key.startswith(STEP_PREFIXES)
    }
