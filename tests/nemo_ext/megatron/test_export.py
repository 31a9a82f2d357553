"""Checkpoints as Hugging Face folders, loaded by transformers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from nemo_ext.megatron.checkpoint_folders import read_model, select_steps
from nemo_ext.megatron.data.token_folder import PackedData
from nemo_ext.megatron.weights.average import average_to_hf
from nemo_ext.megatron.weights.export import export_hf
from nemo_ext.megatron.weights.hf import SafetensorsSource
from nemo_ext.models.shape import ModelShape

pytestmark = pytest.mark.timeout(300)


def export(run: dict[str, Any], out: Path, dtype: str, **options: Any) -> Path:
    return export_hf(Path(run["result"]["checkpoint"]), run["hf"], out, dtype, **options)


def loss_by_transformers(folder: Path, data: PackedData) -> float:
    """Mean over the trained tokens of every sample on its own."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    total = count = 0.0
    for index in range(len(data)):
        tokens, mask = (torch.tensor(part.astype(int)) for part in data.sample(index))
        with torch.no_grad():
            logits = model(tokens[None]).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="none")
        total += float((losses * mask[1:]).sum())
        count += float(mask[1:].sum())
    return total / count


@pytest.mark.parametrize("name", ["tensor", "tied"])
def test_transformers_finds_megatrons_validation_loss(
    trained: dict[str, dict[str, Any]], data: Path, tmp_path: Path, name: str
) -> None:
    run = trained[name]
    out = export(run, tmp_path / "hf", "fp32")
    expected = run["result"]["validation_loss"]
    assert loss_by_transformers(out, PackedData.open(data)) == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(run["lines"][0]["validation_loss"], rel=1e-3), "training moved it"


def test_untouched_weights_come_back_bit_for_bit(trained: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    run = trained["still"]
    out = export(run, tmp_path / "hf", "bf16")
    before, after = (load_file(folder / "model.safetensors") for folder in (run["hf"], out))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype == torch.bfloat16
        assert torch.equal(tensor, after[name]), name


def test_shards_and_their_index(trained: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    run = trained["tensor"]
    whole, parts = (
        export(run, tmp_path / "one", "fp32"),
        export(run, tmp_path / "many", "fp32", max_shard_bytes=40_000),
    )
    index = json.loads((parts / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in parts.glob("*.safetensors"))
    assert len(files) > 2
    assert sorted(set(index["weight_map"].values())) == files
    expected = load_file(whole / "model.safetensors")
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in expected.values())
    for name, tensor in expected.items():
        assert torch.equal(load_file(parts / index["weight_map"][name])[name], tensor)
    AutoModelForCausalLM.from_pretrained(parts)


def test_tied_embeddings_are_written_once_and_padding_not_at_all(
    trained: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    tensors = load_file(export(trained["tied"], tmp_path / "tied", "fp32") / "model.safetensors")
    assert "lm_head.weight" not in tensors
    assert tensors["model.embed_tokens.weight"].shape[0] == 250
    tensors = load_file(export(trained["tensor"], tmp_path / "untied", "fp32") / "model.safetensors")
    assert tensors["lm_head.weight"].shape[0] == 250


def test_an_average_can_be_trained_on(trained: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    run = trained["tensor"]
    checkpoints = Path(run["result"]["checkpoint"]).parent
    assert read_model(checkpoints) == (run["hf"], ModelShape.from_hf(run["hf"]))
    first = export(run, tmp_path / "first", "fp32")
    out = average_to_hf(select_steps(checkpoints, [4, 6]), first, tmp_path / "average", "bf16")
    assert SafetensorsSource(out).read("model.norm.weight").dtype == torch.bfloat16
    assert ModelShape.from_hf(out) == ModelShape.from_hf(run["hf"])


def test_progress_and_shards_of_single_tensors(trained: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    run = trained["tensor"]
    seen: list[tuple[int, int]] = []
    out = export(run, tmp_path / "hf", "bf16", max_shard_bytes=1, on_bytes=lambda *pair: seen.append(pair))
    index = json.loads((out / "model.safetensors.index.json").read_text())
    total = index["metadata"]["total_size"]
    assert len(set(index["weight_map"].values())) == len(index["weight_map"]) > 20
    assert seen == sorted(seen) and seen[-1] == (total, total) == (2 * ModelShape.from_hf(out).num_parameters,) * 2


def test_companions_and_the_chat_template(trained: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    run = trained["tensor"]
    source = tmp_path / "source"
    source.mkdir()
    config = json.loads((run["hf"] / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config))
    (source / "generation_config.json").write_text('{"eos_token_id": 3}')
    (source / "tokenizer_config.json").write_text('{"chat_template": "old", "model_max_length": 5}')
    (source / "model.safetensors").write_bytes(b"not to be copied")
    template = tmp_path / "llama3.jinja"
    template.write_text("{{ messages }}")
    checkpoint = Path(run["result"]["checkpoint"])
    out = export_hf(checkpoint, source, tmp_path / "hf", "bf16", chat_template=template)
    assert json.loads((out / "generation_config.json").read_text()) == {"eos_token_id": 3}
    assert json.loads((out / "tokenizer_config.json").read_text()) == {"model_max_length": 5}
    assert (out / "chat_template.jinja").read_text() == "{{ messages }}"
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_mistakes_are_refused(trained: dict[str, dict[str, Any]], tied: Path, tmp_path: Path) -> None:
    run = trained["tensor"]
    with pytest.raises(ValueError, match="dtype='fp8'"):
        export(run, tmp_path / "hf", "fp8")
    with pytest.raises(ValueError, match=r"linear_qkv\.weight is .*config\.json makes it"):
        export_hf(Path(run["result"]["checkpoint"]), tied, tmp_path / "hf", "fp32")
    source = tmp_path / "source"
    source.mkdir()
    config = json.loads((run["hf"] / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    with pytest.raises(ValueError, match=r"output_layer\.weight: the source's config\.json has no such tensor"):
        export_hf(Path(run["result"]["checkpoint"]), source, tmp_path / "hf", "fp32")
    assert not (tmp_path / "hf").exists()


def test_a_damaged_checkpoint_is_refused_before_anything_is_written(
    trained: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    run = trained["tensor"]
    checkpoint = tmp_path / "step_0000006"
    shutil.copytree(run["result"]["checkpoint"], checkpoint)
    shard = max(checkpoint.glob("*.distcp"), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(
        ValueError, match=rf"{shard.name} is cut short: a part of (optimizer|decoder|embedding|output)"
    ):
        export_hf(checkpoint, run["hf"], tmp_path / "hf", "fp32")
    shard.unlink()
    with pytest.raises(ValueError, match=rf"{shard.name}, which holds a part of .*, is missing"):
        export_hf(checkpoint, run["hf"], tmp_path / "hf", "fp32")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_0000006"]


def test_a_full_disk_is_refused_before_anything_is_written(
    trained: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"the exported model needs 0\.00 GB .* make room"):
        export(trained["tensor"], tmp_path / "hf", "bf16")
    assert not (tmp_path / "hf").exists()
