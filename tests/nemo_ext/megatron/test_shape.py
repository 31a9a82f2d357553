"""Reading a Hugging Face config."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from nemo_ext.models.rope import inverse_frequencies
from nemo_ext.models.shape import ModelShape, RopeScaling
from tests.nemo_ext.megatron.families import FAMILIES, save_family

LLAMA31_8B: dict[str, Any] = {  # as meta-llama published it, in transformers 4's form
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "tie_word_embeddings": False,
}


QWEN25_7B: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 131072,
    "max_window_layers": 28,
    "sliding_window": 131072,
    "use_sliding_window": False,
    "use_mrope": False,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
}
MISTRAL_7B: dict[str, Any] = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32768,
    "max_position_embeddings": 32768,
    "sliding_window": None,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
}
DEEPSEEK_7B: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 30,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 102400,
    "max_position_embeddings": 4096,
    "pretraining_tp": 1,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "Llama-3.1-8B": (LLAMA31_8B, 8_030_261_248),
    "Llama-3.1-70B": (
        LLAMA31_8B
        | {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
        70_553_706_496,
    ),
    "Llama-3.1-405B": (
        LLAMA31_8B
        | {"hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126, "num_attention_heads": 128},
        405_853_388_800,
    ),
    "Qwen2.5-7B": (QWEN25_7B, 7_615_616_512),
    "Qwen2.5-1.5B": (
        QWEN25_7B
        | {"hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2}
        | {"vocab_size": 151936, "tie_word_embeddings": True},
        1_543_714_304,
    ),
    "Mistral-7B-v0.3": (MISTRAL_7B, 7_248_023_552),
    "deepseek-llm-7b": (DEEPSEEK_7B, 6_910_365_696),
}
"""Configs as published, and the parameters of the published weights."""


def write(folder: Path, base: dict[str, Any] = LLAMA31_8B, **changes: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(base | changes))
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name: str, tmp_path: Path) -> None:
    config, parameters = PUBLISHED[name]
    shape = ModelShape.from_hf(write(tmp_path, config))
    assert shape.num_parameters == parameters
    assert ModelShape.from_json(json.loads(json.dumps(asdict(shape)))) == shape


def test_llama31_8b(tmp_path: Path) -> None:
    shape = ModelShape.from_hf(write(tmp_path))
    assert shape.num_parameters == 8_030_261_248  # as published
    assert shape.head_dim == 128
    assert shape.rope_scaling == RopeScaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192
    )
    assert shape.padded_vocab(128 * 4) == 128512
    assert ModelShape.from_json(json.loads(json.dumps(asdict(shape)))) == shape


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_are_counted_as_transformers_counts(name: str, tmp_path: Path) -> None:
    folder = save_family(tmp_path, name)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert ModelShape.from_hf(folder).num_parameters == model.num_parameters()


def test_families_differ_in_biases_and_windows(tmp_path: Path) -> None:
    qwen, mistral = (ModelShape.from_hf(write(tmp_path, config)) for config in (QWEN25_7B, MISTRAL_7B))
    assert (qwen.model_type, qwen.qkv_bias, qwen.sliding_window) == ("qwen2", True, None)
    assert (mistral.model_type, mistral.qkv_bias, mistral.sliding_window) == ("mistral", False, None)
    assert mistral.head_dim == 128
    assert ModelShape.from_hf(write(tmp_path, MISTRAL_7B, sliding_window=4096)).sliding_window == 4096
    short = {key: value for key, value in MISTRAL_7B.items() if key not in ("sliding_window", "num_key_value_heads")}
    shape = ModelShape.from_hf(write(tmp_path, short))
    assert (shape.sliding_window, shape.num_kv_heads) == (4096, 8), "what transformers takes for keys left out"


def test_linear_rope_scaling_divides_every_frequency(tmp_path: Path) -> None:
    plain = ModelShape.from_hf(write(tmp_path, DEEPSEEK_7B))
    scaled = ModelShape.from_hf(write(tmp_path, DEEPSEEK_7B, rope_scaling={"type": "linear", "factor": 4.0}))
    assert inverse_frequencies(scaled).equal(inverse_frequencies(plain) / 4.0)


def test_a_checkpoint_s_note_from_before_there_were_families(tmp_path: Path) -> None:
    fields = asdict(ModelShape.from_hf(write(tmp_path)))
    old = {key: fields[key] for key in fields if key not in ("model_type", "qkv_bias", "sliding_window")}
    assert ModelShape.from_json(old) == ModelShape.from_hf(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen3"}, "model_type='qwen3' is not supported"),
        ({"attention_bias": True}, "attention_bias=True is not supported; it may be False or absent"),
        ({"mlp_bias": True}, "mlp_bias=True"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor=0\.5 is not supported; it may be 1\.0"),
        ({"quantization_config": {"quant_method": "fp8"}}, r"quantization_config=.*use a checkpoint without it"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window=True"),
        ({"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]}, "layer_types="),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_type='yarn'"),
    ],
)
def test_another_architecture_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelShape.from_hf(write(tmp_path, **changes))


def test_a_config_without_sizes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 8}')
    with pytest.raises(ValueError, match="it has no num_hidden_layers, intermediate_size, num_attention_heads"):
        ModelShape.from_hf(tmp_path)


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json"):
        ModelShape.from_hf(tmp_path)
