"""Hugging Face folders that do not hold what their config says are refused before anything is loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nemo_ext.megatron.weights.hf import SafetensorsSource
from nemo_ext.serving.embedded.forward.checkpoint import read_weights

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def folder(llama31: Path, tmp_path: Path) -> Path:
    shutil.copytree(llama31, tmp_path / "hf")
    return tmp_path / "hf"


@pytest.fixture
def sharded(folder: Path) -> Path:
    """Two shards with an index."""
    tensors = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    names = sorted(tensors)
    files = {name: f"model-{1 + (i > 10):05d}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"weight_map": files}))
    return folder


def test_slices_of_shards_equal_the_whole(sharded: Path, llama31: Path) -> None:
    source, expected = SafetensorsSource(sharded), load_file(llama31 / SINGLE)
    for name, tensor in expected.items():
        assert torch.equal(source.read(name), tensor)
    assert torch.equal(source.read(DOWN, rows=(3, 9)), expected[DOWN][3:9])
    assert torch.equal(source.read(DOWN, columns=(4, 8)), expected[DOWN][:, 4:8])
    with pytest.raises(ValueError, match="has no tensor 'lm_tail'"):
        source.read("lm_tail")


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[DOWN]


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[DOWN] = tensors[DOWN].T.contiguous()


def add_bias(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, rf"has no tensor {DOWN}, which its config\.json asks for"),
        (reshape, rf"model\.safetensors: {DOWN} is \(48, 32\), but config\.json makes it \(32, 48\)"),
        (add_bias, r"model\.safetensors: model\.layers\.0\.self_attn\.q_proj\.bias has no place in a llama model"),
    ],
)
def test_tensors_that_do_not_fit(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE)
    with pytest.raises(ValueError, match=message):
        SafetensorsSource(folder)


def test_what_old_checkpoints_repeat_is_let_be(folder: Path, tied: Path) -> None:
    tensors = load_file(folder / SINGLE)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(tensors, folder / SINGLE)
    SafetensorsSource(folder)
    tensors = load_file(tied / SINGLE)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / SINGLE)
    shutil.copy(tied / "config.json", folder / "config.json")
    SafetensorsSource(folder)


def test_an_output_layer_that_differs_from_what_it_is_tied_to(folder: Path, tied: Path) -> None:
    """transformers would use both; we would train and serve the embedding alone."""
    tensors = load_file(tied / SINGLE)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, folder / SINGLE)
    shutil.copy(tied / "config.json", folder / "config.json")
    with pytest.raises(ValueError, match=r"tie_word_embeddings=true, but lm_head\.weight differs"):
        SafetensorsSource(folder)
    with pytest.raises(ValueError, match=r"tie_word_embeddings=true, but lm_head\.weight differs"):
        read_weights(folder, torch.float32)


def test_a_file_that_the_index_does_not_name_is_not_read(sharded: Path) -> None:
    tensors = {name: tensor + 1 for name, tensor in load_file(sharded / "model-00001-of-00002.safetensors").items()}
    expected = read_weights(sharded, torch.float32)
    save_file(tensors, sharded / "model-00009-of-00009.safetensors")
    found = read_weights(sharded, torch.float32)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def test_files_that_are_missing_or_cut(sharded: Path) -> None:
    second = sharded / "model-00002-of-00002.safetensors"
    content = second.read_bytes()
    second.write_bytes(content[:-4])
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors is cut short: tensor model\."):
        SafetensorsSource(sharded)
    second.unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors is missing"):
        SafetensorsSource(sharded)
    second.write_bytes(content)
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"][DOWN] = "model-00001-of-00002.safetensors"
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=rf"model-00001-of-00002\.safetensors has no tensor {DOWN}, which"):
        SafetensorsSource(sharded)
    (sharded / INDEX).unlink()
    with pytest.raises(ValueError, match=r"has neither model\.safetensors nor"):
        SafetensorsSource(sharded)
