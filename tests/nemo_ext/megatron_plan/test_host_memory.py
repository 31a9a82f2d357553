"""What a node's own memory holds while a checkpoint is written, against what was measured."""

from dataclasses import replace

import pytest

from nemo_ext.megatron.plan.host_memory import PROCESS_BYTES, bytes_at_save
from nemo_ext.megatron.plan.memory import GIB, checkpoint_bytes, stage_parameters
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.models.published_shapes import SHAPES

SMALL = replace(SHAPES["Llama-3.1-8B"], num_layers=8, hidden_size=1024, ffn_size=2816, num_heads=8, num_kv_heads=8)
ON_CPU = TrainSettings(precision="fp32", overlap_communication=False, make_vocab_size_divisible_by=1)


def test_measured_growth_of_156_million_parameters() -> None:
    """fp32 on a CPU: 5.22 GiB more at one replica, 4.35 GiB on each of two; weights are not copied there."""
    count = stage_parameters(SMALL, ON_CPU, 0)
    for replicas, measured in ((1, 5.22), (2, 4.35)):
        counted = bytes_at_save(SMALL, replace(ON_CPU, data_parallel_size=replicas)) - PROCESS_BYTES
        counted -= 4 * count / replicas
        assert counted / count * 156e6 / GIB == pytest.approx(measured, rel=0.15)


def test_every_replica_gathers_its_whole_shard() -> None:
    shape = SHAPES["Llama-3.1-8B"]
    settings = TrainSettings(tensor_model_parallel_size=4, data_parallel_size=2)
    on_node = 8 * bytes_at_save(shape, settings)
    assert 288e9 < on_node < 400e9, "(24 + 12) GB on each of 8 ranks, and what the processes have anyway"
    assert on_node > 3 * checkpoint_bytes(shape, settings)
    split = replace(settings, tensor_model_parallel_size=8, data_parallel_size=1)
    assert 8 * bytes_at_save(shape, split) < on_node
    whole = replace(settings, use_distributed_optimizer=False)
    assert bytes_at_save(shape, whole) < bytes_at_save(shape, settings)
