"""What is refused before a process starts."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, ValidationError

from nemo_ext.megatron.check_settings import validate, validate_forward
from nemo_ext.megatron.settings import ForwardSettings, Optimisation, TrainSettings, pack_length, world_size
from nemo_ext.models.shape import ModelShape


def test_defaults_are_the_papers() -> None:
    """OpenMathInstruct-2, arXiv 2410.01560: batch 512, learning rate 5e-6 constant, weight decay 0.01."""
    settings = TrainSettings()
    validate(settings)
    assert (settings.global_batch_size, settings.lr, settings.weight_decay) == (512, 5e-6, 0.01)
    assert (settings.lr_decay_style, settings.clip_grad, settings.adam_beta2) == ("constant", 0.0, 0.98)
    assert pack_length(settings) == settings.seq_length


def test_world_size_is_the_product() -> None:
    settings = TrainSettings(tensor_model_parallel_size=4, pipeline_model_parallel_size=2, data_parallel_size=3)
    assert world_size(settings) == 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp16"}, r"precision='fp16': it may be one of \('bf16', 'fp32'\)"),
        ({"lr_decay_style": "step"}, "lr_decay_style='step'"),
        ({"loss_mean": "packs"}, r"loss_mean='packs': it may be one of"),
        ({"context_parallel_size": 0}, "context_parallel_size=0: it must be at least 1"),
        ({"context_parallel_size": 8}, "tensor x context parallel size = 8: the model has 4 attention heads"),
        ({"context_parallel_size": 2, "pack_length": 4097}, "pack_length=4097: context and sequence parallelism need"),
        ({"virtual_pipeline_model_parallel_size": 2}, "needs pipeline_model_parallel_size > 1"),
        (
            {"pipeline_model_parallel_size": 2, "virtual_pipeline_model_parallel_size": 2},
            "pipeline x virtual pipeline size = 4: the model has 2 layers",
        ),
        ({"packs_per_step": 4}, "packs_per_step=4 needs packing=global"),
        ({"fp8": "hybrid", "precision": "fp32"}, "fp8=hybrid needs precision=bf16"),
        (
            {"fp8": "hybrid", "pack_length": 4100},
            "fp8=hybrid: a rank's 4100 tokens of a pack must be a multiple of 16",
        ),
        ({"num_layers_at_end_in_bf16": 1}, "need fp8 with fp8_recipe=tensorwise"),
        ({"fp8": "e4m3", "fp8_recipe": "delayed", "num_layers_at_start_in_bf16": 1}, "need fp8 with fp8_recipe=tens"),
        ({"exp_avg_dtype": "bf16"}, "exp_avg_dtype=bf16 needs use_precision_aware_optimizer"),
        (
            {"use_precision_aware_optimizer": True, "use_distributed_optimizer": False},
            "needs use_distributed_optimizer=true",
        ),
        ({"pack_length": 100}, "pack_length=100: it must be at least seq_length"),
        ({"sequence_parallel": True}, "needs tensor_model_parallel_size > 1"),
        (
            {"sequence_parallel": True, "tensor_model_parallel_size": 2, "pack_length": 4097},
            "pack_length=4097: context and sequence parallelism need a multiple of 2",
        ),
        ({"train_iters": 0}, "train_iters=0"),
        ({"lr_warmup_iters": 1000}, "lr_warmup_iters=1000: less than train_iters"),
        ({"min_lr": 1.0}, "min_lr=1.0: between 0 and lr"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"tensor_model_parallel_size": 8}, "tensor_model_parallel_size=8: the model has 2 key-value heads"),
        ({"tensor_model_parallel_size": 4}, "tensor_model_parallel_size=4: the model has 2 key-value heads"),
        ({"pipeline_model_parallel_size": 3}, "pipeline x virtual pipeline size = 3: the model has 2 layers"),
        ({"seq_length": 1024}, "seq_length=1024: the model was made for 512 positions"),
    ],
)
def test_refusals_name_the_setting(changes: dict[str, Any], message: str, llama31: Path) -> None:
    settings = TrainSettings(**({"seq_length": 512} if "pack_length" not in changes else {}) | changes)
    with pytest.raises(ValueError, match=message):
        validate(settings, ModelShape.from_hf(llama31))


def test_samples_longer_than_a_sliding_window_are_refused(llama31: Path) -> None:
    shape = dataclasses.replace(ModelShape.from_hf(llama31), sliding_window=256)
    validate(TrainSettings(seq_length=256), shape)
    with pytest.raises(ValueError, match=r"seq_length=512: the model attends to 256 tokens back \(sliding_window\)"):
        validate(TrainSettings(seq_length=512), shape)


def test_it_is_a_config_schema() -> None:
    schema = OmegaConf.structured(TrainSettings)
    merged = OmegaConf.merge(schema, {"lr": 1, "pack_length": 8192})
    assert merged.lr == 1.0
    for wrong, error in (({"learning_rate": 1.0}, ConfigKeyError), ({"lr": "fast"}, ValidationError)):
        with pytest.raises(error):
            OmegaConf.merge(schema, wrong)


def test_a_forward_pass_takes_the_groups_that_it_needs(llama31: Path) -> None:
    names = {field.name for field in dataclasses.fields(ForwardSettings)}
    assert {"tensor_model_parallel_size", "pack_length", "precision"} <= names
    assert not names & {field.name for field in dataclasses.fields(Optimisation)}
    validate_forward(ForwardSettings(seq_length=512), ModelShape.from_hf(llama31))
    with pytest.raises(ValueError, match="tensor_model_parallel_size=4: the model has 2 key-value heads"):
        validate_forward(ForwardSettings(seq_length=512, tensor_model_parallel_size=4), ModelShape.from_hf(llama31))
    with pytest.raises(ValueError, match="precision='fp64'"):
        validate_forward(ForwardSettings(precision="fp64"))


def test_the_planner_can_import_it_without_torch() -> None:
    code = "import sys, nemo_ext.megatron.check_settings, nemo_ext.megatron.checkpoint_folders; assert 'torch' not in sys.modules"
    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
