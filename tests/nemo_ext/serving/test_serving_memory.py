"""The memory of a server's GPUs, against published sizes and by hand."""

import json
from pathlib import Path

import pytest

from nemo_ext.machine.gpus import gpu_named
from nemo_ext.models.model import Model
from nemo_ext.models.published_shapes import SHAPES
from nemo_ext.serving import memory
from nemo_ext.serving.memory import GIB, serving_memory
from nemo_ext.serving.servers import sglang, trtllm, vllm

TEACHER = SHAPES["Llama-3.1-405B"]


def model(name: str = "Llama-3.1-405B-Instruct-FP8", dtype: str = "fp8") -> Model:
    return Model(name="teacher", hf_path=f"/models/{name}", context_length=131072, weights_dtype=dtype)


def test_405b_is_as_large_as_published() -> None:
    one_node = serving_memory(TEACHER, model(), trtllm.Config(tp_size=8), None)
    assert 405e9 < 8 * one_node.weights_gib * GIB < 411e9
    two_nodes = serving_memory(TEACHER, model(dtype="bf16"), trtllm.Config(tp_size=8, pp_size=2, nodes=2), None)
    assert 16 * two_nodes.weights_gib * GIB == pytest.approx(2 * TEACHER.num_parameters, rel=1e-3)
    assert one_node.kv_gib is None and one_node.kv_tokens is None and one_node.sequences(100) is None


def test_cache_per_token() -> None:
    def per_token(tp: int, pp: int, dtype: str = "auto") -> int:
        cfg = trtllm.Config(tp_size=tp, pp_size=pp, kv_cache_dtype=dtype)
        return serving_memory(TEACHER, model(), cfg, None).kv_bytes_per_token

    assert per_token(8, 1) * 8 == 126 * 8 * 128 * 2 * 2 == 516_096
    assert per_token(8, 1, "fp8") * 8 == 258_048
    assert per_token(8, 2) == per_token(8, 1) / 2, "half the layers"
    assert per_token(16, 1) == per_token(8, 1), "8 heads on 16 GPUs: each is held twice"


def test_tp16_holds_half_of_what_tp8_pp2_does() -> None:
    tp16, tp8_pp2 = (
        serving_memory(TEACHER, model(dtype="bf16"), trtllm.Config(tp_size=tp, pp_size=16 // tp, nodes=2), 79.1)
        for tp in (16, 8)
    )
    assert tp8_pp2.kv_tokens is not None and tp16.kv_tokens is not None
    assert tp8_pp2.kv_tokens == pytest.approx(2 * tp16.kv_tokens, rel=0.05)


def test_each_kind_shares_memory_out_its_own_way() -> None:
    total, weights, buffers = 80.0, 50.0, 6.0
    assert trtllm.Config(kv_cache_free_gpu_memory_fraction=0.5).kv_gib(total, weights, buffers) == 12
    assert vllm.Config(gpu_memory_utilization=0.9).kv_gib(total, weights, buffers) == pytest.approx(16)
    assert sglang.Config(mem_fraction_static=0.85).kv_gib(total, weights, buffers) == pytest.approx(18)
    assert sglang.Config(mem_fraction_static=0.99).kv_gib(total, weights, buffers) == 24, "not more than there is"


def test_a_checkpoint_that_is_here_is_looked_at(tmp_path: Path) -> None:
    here = Model(name="m", hf_path=str(tmp_path), context_length=8)
    assert memory.checkpoint_bytes(tmp_path) is None
    (tmp_path / "a.safetensors").write_bytes(b"x" * 1000)
    (tmp_path / "b.safetensors").write_bytes(b"x" * 500)
    assert memory.checkpoint_bytes(tmp_path) == 1500
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 8 * GIB}}))
    assert serving_memory(SHAPES["Llama-3.1-8B"], here, trtllm.Config(), None).weights_gib == pytest.approx(8)
    quarter = serving_memory(SHAPES["Llama-3.1-8B"], here, trtllm.Config(tp_size=4), None).weights_gib
    assert quarter == pytest.approx(2, rel=0.01)


def test_a_quantised_checkpoint_has_the_shape_of_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "Llama-3.1-8B-Instruct-FP8"
    folder.mkdir()
    config = {"model_type": "llama", "quantization_config": {"quant_method": "modelopt"}}
    (folder / "config.json").write_text(json.dumps(config))
    quantised = Model(name="m", hf_path=str(folder), context_length=8)
    assert memory.shape_for(quantised) == SHAPES["Llama-3.1-8B"]
    assert memory.shape_for(model("checkpoint_1")) is None


@pytest.mark.parametrize(
    ("changes", "dtype", "message"),
    [
        ({"tp_size": 3}, "fp8", r"server\.tp_size=3: teacher has 128 heads and 8 key-value heads"),
        ({"pp_size": 127}, "fp8", r"server\.pp_size=127: teacher has 126 layers"),
        ({}, "int4", r"model\.weights_dtype='int4'; it may be one of \('bf16', 'fp8'\)"),
    ],
)
def test_sizes_that_do_not_go_together(changes: dict[str, int], dtype: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        serving_memory(TEACHER, model(dtype=dtype), trtllm.Config(**changes), gpu_named("h100").memory_gib)
