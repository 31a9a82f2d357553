"""Process groups: who this process is among the tensor, pipeline and data parallel ranks.

The launcher sets RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT. With a GPU the backend is NCCL and each
process takes the GPU of its LOCAL_RANK (unproven here: no GPU was at hand); without one it is gloo on the CPU.
"""

import os
import warnings
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from nemo_ext.megatron.layers.matmul import use_fast_matmul
from nemo_ext.megatron.runtime import cpu
from nemo_ext.megatron.settings import ForwardSettings, world_size

# megatron-core 0.16 calls collectives by names that torch 2.13 deprecates.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
cpu.enable()

from megatron.core import parallel_state, tensor_parallel


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """This process's place. Ranks count from 0."""

    rank: int
    world_size: int
    device: torch.device
    tensor_rank: int
    tensor_size: int
    pipeline_rank: int
    pipeline_size: int
    num_chunks: int
    """Model chunks of this process: more than one with a virtual pipeline."""
    context_rank: int
    context_size: int
    data_rank: int
    data_size: int

    def chunk_place(self, chunk: int) -> int:
        """Where model chunk `chunk` of this process comes in the model, of pipeline_size x num_chunks equal runs of
        layers: the chunks of the stages alternate."""
        return chunk * self.pipeline_size + self.pipeline_rank

    @property
    def num_places(self) -> int:
        return self.pipeline_size * self.num_chunks


def initialize(settings: ForwardSettings, seed: int = 0, timeout_s: float = 1800.0) -> Parallel:
    """Join the job, unless this process already has, and build Megatron's groups.

    Raises:
        ValueError: the launcher started another number of processes than the settings ask for.
    """
    started = int(os.environ["WORLD_SIZE"])
    if started != world_size(settings):
        raise ValueError(
            f"WORLD_SIZE={started}, but tensor x pipeline x context x data parallel sizes need {world_size(settings)} "
            "processes"
        )
    if settings.deterministic_mode:  # read by Transformer Engine's attention when its layers are made
        os.environ["NVTE_ALLOW_NONDETERMINISTIC_ALGO"] = "0"
    device = _device()
    backend = "nccl" if device.type == "cuda" else "gloo"
    if not dist.is_initialized():
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=settings.tensor_model_parallel_size,
        pipeline_model_parallel_size=settings.pipeline_model_parallel_size,
        virtual_pipeline_model_parallel_size=settings.virtual_pipeline_model_parallel_size,
        context_parallel_size=settings.context_parallel_size,
    )
    torch.manual_seed(seed)
    tensor_parallel.model_parallel_cuda_manual_seed(seed)
    return Parallel(
        rank=dist.get_rank(),
        world_size=started,
        device=device,
        tensor_rank=parallel_state.get_tensor_model_parallel_rank(),
        tensor_size=parallel_state.get_tensor_model_parallel_world_size(),
        pipeline_rank=parallel_state.get_pipeline_model_parallel_rank(),
        pipeline_size=parallel_state.get_pipeline_model_parallel_world_size(),
        num_chunks=settings.virtual_pipeline_model_parallel_size or 1,
        context_rank=parallel_state.get_context_parallel_rank(),
        context_size=settings.context_parallel_size,
        data_rank=parallel_state.get_data_parallel_rank(),
        data_size=parallel_state.get_data_parallel_world_size(),
    )


def leave_groups() -> None:
    """Give up Megatron's groups but stay in the job, so that `initialize` may build others."""
    parallel_state.destroy_model_parallel()


def shutdown() -> None:
    """Leave the job."""
    leave_groups()
    dist.destroy_process_group()


def _device() -> torch.device:
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # one process per core: more threads only fight over the cores
        use_fast_matmul()
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return torch.device("cuda", torch.cuda.current_device())
