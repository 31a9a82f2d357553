"""Averages against numpy, to the bit, and within bounded memory."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from nemo_ext.megatron.checkpoint_folders import select_steps
from nemo_ext.megatron.weights import blocks
from nemo_ext.megatron.weights.average import average_to_hf
from nemo_ext.megatron.weights.blocks import row_blocks
from nemo_ext.megatron.weights.export import export_hf
from nemo_ext.megatron.weights.families.decoder import pieces
from nemo_ext.megatron.weights.mapping import LAYER_PREFIX, Piece
from nemo_ext.models.shape import ModelShape
from tests.conftest import ROOT
from tests.nemo_ext.megatron.checkpoints import cheap_values, save_shape, whole, write_boxes, write_model

pytestmark = pytest.mark.timeout(300)

GROWTH = """
import re, sys
from pathlib import Path
from nemo_ext.megatron.weights import export
from nemo_ext.megatron.weights.average import average_to_hf
assert not [name for name in sys.modules if name.startswith("megatron.core")], "a machine without it can average and export"
# Not getrusage: its peak counts from before exec, when the process was a copy of pytest.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024
before = peak()
*folders, hf, out = map(Path, sys.argv[1:])
average_to_hf(folders, hf, out, "bf16")
print(peak() - before)
"""
"""Prints by how many MB an average raises a process's peak memory, imports not counted."""


def make_shape(layers: int, hidden: int, ffn: int, heads: int, groups: int, vocab: int) -> ModelShape:
    return ModelShape(
        num_layers=layers,
        hidden_size=hidden,
        ffn_size=ffn,
        num_heads=heads,
        num_kv_heads=groups,
        head_dim=hidden // heads,
        vocab_size=vocab,
        max_positions=64,
        rope_theta=1e4,
        rope_scaling=None,
        norm_eps=1e-6,
        tied_embeddings=False,
    )


SMALL = make_shape(layers=3, hidden=8, ffn=12, heads=4, groups=2, vocab=11)


def values_of(piece: Piece, shape: ModelShape, checkpoint: int) -> torch.Tensor:
    """What cheap_values put into a checkpoint for a Hugging Face tensor, fp32."""
    key = piece.key if piece.layer is None else LAYER_PREFIX + piece.key
    width = piece.num_elements // piece.size[0]
    last = max(start + count for start, count in piece.rows)
    rows = cheap_values(checkpoint)(key, piece.layer or 0, last * width).reshape(last, *piece.size[1:])
    return torch.cat([rows[start : start + count] for start, count in piece.rows])


def numpy_mean(tensors: list[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    """The mean in fp32, rounded once."""
    mean = np.mean(np.stack([tensor.float().numpy() for tensor in tensors]), axis=0, dtype=np.float32)
    return torch.from_numpy(mean).to(dtype)


def equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first, second)


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [
        (torch.float32, "fp32"),
        (torch.float32, "bf16"),
        (torch.bfloat16, "bf16"),
        (torch.bfloat16, "fp32"),
        (torch.float16, "fp16"),
    ],
)
def test_it_is_numpys_mean_in_fp32_rounded_once(tmp_path: Path, stored: torch.dtype, dtype: str) -> None:
    hf = save_shape(tmp_path / "hf", SMALL)
    folders = [write_model(tmp_path / f"step_{i:07d}", SMALL, stored, False, cheap_values(i)) for i in (1, 2, 3)]
    result = load_file(average_to_hf(folders, hf, tmp_path / "average", dtype) / "model.safetensors")
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    for piece in pieces(SMALL):
        inputs = [values_of(piece, SMALL, i).to(stored) for i in (1, 2, 3)]
        assert equal(result.pop(piece.name), numpy_mean(inputs, wanted)), piece.name
    assert not result


def test_bf16_is_accumulated_in_fp32(tmp_path: Path) -> None:
    """256 + 1 + 1 + 1: in bf16 each 1 is lost; the mean is 64.75."""
    hf = save_shape(tmp_path / "hf", SMALL)
    folders = [
        write_model(tmp_path / str(i), SMALL, torch.bfloat16, False, lambda key, layer, n, v=v: torch.full((n,), v))
        for i, v in enumerate([256.0, 1.0, 1.0, 1.0])
    ]
    result = load_file(average_to_hf(folders, hf, tmp_path / "average", "fp32") / "model.safetensors")
    assert all(tensor.eq(64.75).all() for tensor in result.values())


def test_the_optimizers_fp32_weights_are_preferred_and_said_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hf = save_shape(tmp_path / "hf", SMALL)
    folders = [
        write_model(tmp_path / f"step_{i:07d}", SMALL, torch.bfloat16, i == 1, cheap_values(i)) for i in (1, 20000)
    ]
    out = average_to_hf(folders, hf, tmp_path / "average", "fp32")
    result = load_file(out / "model.safetensors")
    for piece in pieces(SMALL):
        inputs = [values_of(piece, SMALL, 1), values_of(piece, SMALL, 20000).bfloat16()]
        assert equal(result[piece.name], numpy_mean(inputs, torch.float32))
    assert json.loads((out / "average.json").read_text()) == {
        "dtype": "fp32",
        "checkpoints": [
            {"path": str(folders[0]), "step": 1, "precision": "main parameters in float32"},
            {"path": str(folders[1]), "step": 20000, "precision": "weights in bfloat16"},
        ],
    }
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"{folders[1]}: read as weights in bfloat16, not as the optimizer's fp32 weights")


def test_trained_checkpoints(trained: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    run = trained["tensor"]
    steps = select_steps(Path(run["result"]["checkpoint"]).parent, [2, 4, 6])
    out = average_to_hf(steps, run["hf"], tmp_path / "average", "fp32")
    each = [
        load_file(export_hf(step, run["hf"], tmp_path / step.name, "fp32") / "model.safetensors") for step in steps
    ]
    result = load_file(out / "model.safetensors")
    for name, tensor in result.items():
        assert equal(tensor, numpy_mean([tensors[name] for tensors in each], torch.float32)), name
    changed = [name for name in result if not torch.equal(each[0][name], each[2][name])]
    assert len(changed) > 15, "the checkpoints must differ for this to show anything"
    model = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(model.lm_head.weight, result["lm_head.weight"])


def test_topology_and_vocabulary_padding_may_differ(tmp_path: Path) -> None:
    """A checkpoint with more padding, and one whose layers are not stacked, as newer megatron-core writes them."""
    hf = save_shape(tmp_path / "hf", SMALL)
    first = write_model(tmp_path / "a", SMALL, torch.float32, False, cheap_values(1))
    reader = blocks.TorchDistReader(first)
    tensors: dict[str, torch.Tensor] = {}
    for key in reader.weights:
        tensor = reader.read(key)
        if key.startswith(LAYER_PREFIX):
            names = [f"{LAYER_PREFIX}{i}.{key.removeprefix(LAYER_PREFIX)}" for i in range(SMALL.num_layers)]
            tensors |= dict(zip(names, tensor, strict=True))
        elif "norm" in key:
            tensors[key] = tensor
        else:
            tensors[key] = torch.cat([tensor, torch.full((5, SMALL.hidden_size), 7.0)])
    second = write_boxes(tmp_path / "b", whole(tensors))
    average, single = (
        load_file(average_to_hf(folders, hf, tmp_path / str(len(folders)), "fp32") / "model.safetensors")
        for folders in ([first, second], [first])
    )
    assert average.keys() == single.keys()
    assert all(equal(average[name], single[name]) for name in single)


@pytest.mark.parametrize("most", [1, 7, 40, 10**6])
def test_blocks_are_the_rows_in_order(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", most)
    for piece in pieces(SMALL):
        parts = list(row_blocks(piece))
        rows = [row for block in parts for start, count in block for row in range(start, start + count)]
        assert rows == [row for start, count in piece.rows for row in range(start, start + count)]
        width = piece.num_elements // piece.size[0]
        assert all(sum(count for _, count in block) <= max(1, most // width) for block in parts)


@pytest.mark.parametrize("most", [1, 30])
def test_small_blocks_give_the_same_file(most: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hf = save_shape(tmp_path / "hf", SMALL)
    folders = [write_model(tmp_path / str(i), SMALL, torch.bfloat16, True, cheap_values(i)) for i in (1, 2)]
    large = average_to_hf(folders, hf, tmp_path / "large", "bf16")
    monkeypatch.setattr(blocks, "BLOCK", most)
    small = average_to_hf(folders, hf, tmp_path / "small", "bf16")
    assert (large / "model.safetensors").read_bytes() == (small / "model.safetensors").read_bytes()


def test_different_models_are_refused(tmp_path: Path) -> None:
    hf = save_shape(tmp_path / "hf", SMALL)
    first = write_model(tmp_path / "a", SMALL, torch.float32, False, cheap_values(1))
    wider = make_shape(layers=3, hidden=8, ffn=16, heads=4, groups=2, vocab=11)
    other = write_model(tmp_path / "b", wider, torch.float32, False, cheap_values(1))
    smaller = make_shape(layers=3, hidden=8, ffn=12, heads=4, groups=2, vocab=10)
    short = write_model(tmp_path / "c", smaller, torch.float32, False, cheap_values(1))
    out = tmp_path / "average"
    with pytest.raises(ValueError, match=r"/b: decoder\.layers\.mlp\.linear_fc1\.weight is \(3, 32, 8\), but"):
        average_to_hf([first, other], hf, out, "bf16")
    with pytest.raises(ValueError, match=r"/c: embedding\.word_embeddings\.weight is \(10, 8\), but .* \(11, 8\)"):
        average_to_hf([first, short], hf, out, "bf16")
    with pytest.raises(ValueError, match="checkpoint_dirs is empty"):
        average_to_hf([], hf, out, "bf16")
    with pytest.raises(ValueError, match=r"has no \.metadata"):
        average_to_hf([tmp_path / "absent"], hf, out, "bf16")
    (first / "__0_0.distcp").write_bytes((first / "__0_0.distcp").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"/a/__0_0\.distcp is cut short: a part of "):
        average_to_hf([first], hf, out, "bf16")
    assert not out.exists() and not list(tmp_path.glob("*.partial"))


@pytest.fixture
def large_space(tmp_path: Path) -> Iterator[Path]:
    """A folder whose content does not outlive the test, as pytest's own would."""
    folder = tmp_path / "large"
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_memory_is_bounded_and_no_megatron_is_needed(large_space: Path) -> None:
    """0.4 GB of checkpoints: single boxes of 131 MB, blocks of 4 MB."""
    shape = make_shape(layers=1, hidden=1024, ffn=1024, heads=8, groups=4, vocab=32000)
    assert shape.num_parameters * 4 > 2.7e8
    hf = save_shape(large_space / "hf", shape)
    folders = [
        write_model(large_space / f"step_{i:07d}", shape, torch.bfloat16, i == 1, cheap_values(i)) for i in (1, 2)
    ]
    out = large_space / "average"
    arguments = [sys.executable, "-c", GROWTH, *map(str, [*folders, hf, out])]
    grown = subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    threads = min(blocks.MAX_THREADS, os.cpu_count() or 1)
    assert 10 < int(grown) < 100 + 50 * threads, f"{grown} MB with {threads} threads"
    with safe_open(out / "model.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == sorted(piece.name for piece in pieces(shape))
        for piece in list(pieces(shape))[::4]:
            inputs = [values_of(piece, shape, 1), values_of(piece, shape, 2).bfloat16()]
            assert equal(file.get_tensor(piece.name), numpy_mean(inputs, torch.bfloat16)), piece.name
