"""A model family is one new file: read, trained over two processes and exported under its own names."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nemo_ext.megatron.checkpoint_files import write_record
from nemo_ext.megatron.weights import families as weight_families
from nemo_ext.megatron.weights.average import average_to_hf
from nemo_ext.megatron.weights.export import export_hf
from nemo_ext.models import architectures, families
from nemo_ext.models.shape import ModelShape
from tests.nemo_ext.megatron.checkpoints import whole, write_boxes
from tests.nemo_ext.megatron.families import save_family
from tests.nemo_ext.megatron.ranks import run_ranks
from tests.nemo_ext.megatron.tiny import save_data

FAMILY = '''"""A Qwen2 that names its tensors otherwise."""

from nemo_ext.models.family import LAYER, OUTER, Family

FAMILY = Family(
    defaults={"max_position_embeddings": 512},
    qkv_bias=True,
    layer_prefix="transformer.blocks.",
    outer=OUTER | {"embedding.word_embeddings.weight": "transformer.wte.weight"},
    layer=LAYER | {"mlp.linear_fc1.weight": ("ffn.w1.weight", "ffn.w3.weight"), "mlp.linear_fc2.weight": ("ffn.w2.weight",)},
)
'''
NAMES = {
    "model.layers.": "transformer.blocks.",
    "model.embed_tokens.": "transformer.wte.",
    "mlp.gate_proj.": "ffn.w1.",
    "mlp.up_proj.": "ffn.w3.",
    "mlp.down_proj.": "ffn.w2.",
}

pytestmark = pytest.mark.timeout(300)  # real processes; seconds on a quiet machine


def train_runs(argument: dict[str, Any]) -> list[Any]:
    """programs.train_runs, with the families of the folder argument["families"]."""
    from tests.nemo_ext.megatron import programs

    families.__path__.append(argument["families"])
    return programs.train_runs(argument)


def renamed(name: str) -> str:
    for before, after in NAMES.items():
        name = name.replace(before, after)
    return name


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A Qwen2, and the same model as the new family has it."""
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "othernames.py").write_text(FAMILY)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path / "added")])
    known, new = save_family(tmp_path / "known", "qwen2"), tmp_path / "new"
    new.mkdir()
    tensors = load_file(known / "model.safetensors")
    save_file({renamed(name): tensor for name, tensor in tensors.items()}, new / "model.safetensors")
    config = json.loads((known / "config.json").read_text())
    (new / "config.json").write_text(json.dumps(config | {"model_type": "othernames"}))
    return known, new


def test_one_file_adds_a_family(folders: tuple[Path, Path], tmp_path: Path) -> None:
    data = save_data(tmp_path / "data")
    settings = {"tp": 2, "train_iters": 2, "global_batch_size": 32, "lr": 1e-3, "pack_length": 128}
    cases = [
        {"hf": str(folder), "data": str(data), "output": str(tmp_path / "out" / folder.name), "settings": settings}
        for folder in folders
    ]
    argument = {"cases": cases, "families": str(tmp_path / "added")}
    runs = run_ranks(2, "tests.nemo_ext.megatron.test_new_family", "train_runs", argument)[0]
    figures = [[(x["loss"], x["grad_norm"]) for x in run["lines"] if "loss" in x] for run in runs]
    assert len(figures[0]) == 2 and figures[0] == figures[1], "the same bits under other names"
    known, new = (
        load_file(
            export_hf(Path(run["result"]["checkpoint"]), folder, tmp_path / f"hf_{folder.name}", "fp32")
            / "model.safetensors"
        )
        for run, folder in zip(runs, folders, strict=True)
    )
    assert new.keys() == {renamed(name) for name in known}
    assert all(torch.equal(new[renamed(name)], tensor) for name, tensor in known.items())


def test_an_unknown_model_type_is_refused_with_those_there_are(folders: tuple[Path, Path]) -> None:
    shape = ModelShape.from_hf(folders[1])
    assert shape.model_type == "othernames" and shape.qkv_bias
    config = json.loads((folders[1] / "config.json").read_text())
    (folders[1] / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    with pytest.raises(
        ValueError,
        match=r"model_type='mamba' is not supported; .*\['llama', 'mistral', 'mixtral', 'othernames', 'qwen2'\]",
    ):
        ModelShape.from_hf(folders[1])


PATTERN = '''"""Layers that take turns: a mixer, then a projection."""

from nemo_ext.megatron.weights.mapping import EMBEDDING, OUTPUT, Piece


def outer_sizes(shape):
    return {EMBEDDING: (shape.vocab_size, shape.hidden_size), OUTPUT: (shape.vocab_size, shape.hidden_size)}


def layer_sizes(shape, layer):
    hidden, ffn = shape.hidden_size, shape.ffn_size
    return {"mlp.linear_fc1.weight": (ffn, hidden)} if layer % 2 else {"mixer.in_proj.weight": (hidden, hidden)}


def pieces(shape):
    for key, size in outer_sizes(shape).items():
        yield Piece(key, size, key, None, ((0, size[0]),))
    for layer in range(shape.num_layers):
        for key, size in layer_sizes(shape, layer).items():
            yield Piece(f"backbone.{layer}.{key}", size, key, layer, ((0, size[0]),))
'''


COSTS = '''"""What those layers cost."""

from nemo_ext.models.layer_cost import LayerCost


def layers(shape):
    mixer, mlp = (LayerCost(split_parameters=shape.hidden_size * width) for width in (shape.hidden_size, shape.ffn_size))
    return [mlp if layer % 2 else mixer for layer in range(shape.num_layers)]
'''


def test_layers_may_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint whose layers take turns is averaged and exported, and one that lacks a layer is refused."""
    for package, name, text in (
        (
            families,
            "turns",
            "from nemo_ext.models.family import Family\nFAMILY = Family(defaults={}, architecture='turns')\n",
        ),
        (weight_families, "turns", PATTERN),
        (architectures, "turns", COSTS),
    ):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    config = {"model_type": "turns", "num_hidden_layers": 4, "hidden_size": 8, "intermediate_size": 12}
    config |= {"num_attention_heads": 2, "vocab_size": 11, "max_position_embeddings": 64}
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    sizes = {"embedding.word_embeddings.weight": (11, 8), "output_layer.weight": (11, 8)}
    sizes |= {f"decoder.layers.{layer}.mixer.in_proj.weight": (8, 8) for layer in (0, 2)}
    sizes |= {f"decoder.layers.{layer}.mlp.linear_fc1.weight": (12, 8) for layer in (1, 3)}
    checkpoints = []
    for number in (1, 2):
        tensors = {key: torch.full(size, float(number) + place) for place, (key, size) in enumerate(sizes.items())}
        checkpoints.append(write_boxes(tmp_path / f"step_000000{number}", whole(tensors)))
        write_record(checkpoints[-1], {})
    exported = load_file(average_to_hf(checkpoints, tmp_path / "hf", tmp_path / "out", "fp32") / "model.safetensors")
    names = [key.replace("decoder.layers.", "backbone.") for key in sizes]
    assert {name: float(tensor.unique()) for name, tensor in exported.items()} == {
        name: 1.5 + place for place, name in enumerate(names)
    }
    del tensors["decoder.layers.2.mixer.in_proj.weight"]
    short = write_boxes(tmp_path / "step_0000003", whole(tensors))
    with pytest.raises(ValueError, match=r"decoder\.layers\.2\.mixer\.in_proj\.weight is None"):
        export_hf(short, tmp_path / "hf", tmp_path / "short", "fp32")
