"""Reading a Hugging Face config."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from nemo_ext.megatron.shape import ModelShape, RopeScaling

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


def write(folder: Path, **changes: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(LLAMA31_8B | changes))
    return folder


def test_llama31_8b(tmp_path: Path) -> None:
    shape = ModelShape.from_hf(write(tmp_path))
    assert shape.num_parameters == 8_030_261_248  # as published
    assert shape.head_dim == 128
    assert shape.rope_scaling == RopeScaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192
    )
    assert shape.padded_vocab(128 * 4) == 128512
    assert ModelShape.from_json(json.loads(json.dumps(asdict(shape)))) == shape


@pytest.mark.parametrize("name", ["llama31", "tied"])
def test_parameters_are_counted_as_transformers_counts(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert ModelShape.from_hf(folder).num_parameters == model.num_parameters()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen3"}, "model_type='qwen3' is not supported"),
        ({"attention_bias": True}, "attention_bias=true"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_type='yarn'"),
    ],
)
def test_another_architecture_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelShape.from_hf(write(tmp_path, **changes))


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json"):
        ModelShape.from_hf(tmp_path)
