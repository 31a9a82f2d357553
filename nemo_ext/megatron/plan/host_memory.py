"""Host memory that writing a checkpoint takes on a node. Light imports only: the launcher plans with it.

Optimizer state is saved in a form that every topology can load (`fully_reshardable`). For it megatron-core 0.16 gathers
the state of a model parallel shard, three fp32 numbers per parameter, into host memory on *every* replica
(distrib_optimizer.py, get_parameter_state_dp_zero), and the writer clones the share it writes. Measured with 156 M
parameters in fp32 on a CPU: 5.22 GiB more while a checkpoint is written with one replica, 4.35 GiB on each of two. That it
is the same on a GPU node is arithmetic and has not been measured.
"""

from nemo_ext.megatron.plan.memory import GIB, stage_parameters
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.models.shape import ModelShape

STATE_BYTES = 12
"""fp32 weights and Adam's two moments, as they are saved."""
TEMPORARY_BYTES = 8
"""Per parameter of the bucket being gathered: what is sent and what is received."""
BUCKET = 40_000_000
"""Parameters of a bucket where communication overlaps with compute (megatron-core's default); otherwise one holds all."""
PROCESS_BYTES = 4 * GIB
"""Python, torch, CUDA and NCCL of one rank. Assumed."""


def bytes_at_save(shape: ModelShape, settings: TrainSettings) -> float:
    """Host memory of one rank on a GPU node while a checkpoint is written, of the pipeline stage that needs most."""
    stages = range(settings.pipeline_model_parallel_size)
    return max(_of_stage(settings, stage_parameters(shape, settings, stage)) for stage in stages)


def _of_stage(settings: TrainSettings, parameters: int) -> float:
    replicas = settings.data_parallel_size * settings.context_parallel_size
    weights = 2 if settings.precision == "bf16" else 4
    written = (STATE_BYTES + weights) * parameters / replicas
    if not settings.use_distributed_optimizer:  # nothing is gathered: each replica holds all of the state
        return PROCESS_BYTES + written
    bucket = parameters if settings.overlap_communication is False else min(parameters, BUCKET * replicas)
    return PROCESS_BYTES + STATE_BYTES * parameters + written + TEMPORARY_BYTES * bucket
