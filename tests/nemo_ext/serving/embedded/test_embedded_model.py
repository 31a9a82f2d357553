"""The forward pass against transformers, and the cache against itself."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from nemo_ext.serving.embedded.checkpoint import read_config, read_weights
from nemo_ext.serving.embedded.model import Llama


def _load(folder: Path, dtype: torch.dtype = torch.float64, slots: int = 4) -> Llama:
    config = read_config(folder)
    return Llama(config, read_weights(folder, dtype), slots, config.max_position_embeddings)


@pytest.fixture(params=["tiny_checkpoint", "llama3_checkpoint"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture
def ids() -> torch.Tensor:
    """A prompt of the whole context: eight times llama3's original_max_position_embeddings."""
    return torch.randint(0, 400, (512,), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_prefill_logits_equal_transformers(checkpoint: Path, ids: torch.Tensor, dtype: torch.dtype) -> None:
    reference = LlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)(ids[None]).logits[0]
    ours = _load(checkpoint, dtype).all_logits(ids)
    assert reference.std() > 0.5
    torch.testing.assert_close(ours.float(), reference, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_decode_logits_equal_transformers(checkpoint: Path, ids: torch.Tensor) -> None:
    """Token by token in slot 0 while another slot runs at other positions."""
    reference = LlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)(ids[None]).logits[0]
    model, start = _load(checkpoint), 480
    prompts = torch.stack([ids[:start], torch.zeros_like(ids[:start])])
    logits = [model.prefill(prompts, torch.tensor([start, 7]), torch.tensor([0, 1]))[0]]
    for step, position in enumerate(range(start, len(ids))):
        tokens = torch.stack([ids[position], ids[step]])
        logits.append(model.decode(tokens, torch.tensor([position, 7 + step]))[0])
    torch.testing.assert_close(torch.stack(logits).float(), reference[start - 1 :], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_padding_and_batching_change_only_the_last_digits(tiny_checkpoint: Path, ids: torch.Tensor) -> None:
    alone, together = _load(tiny_checkpoint), _load(tiny_checkpoint)
    single = alone.prefill(ids[None, :40], torch.tensor([40]), torch.tensor([0]))[0]
    batch = torch.stack([ids[:300], ids[100:400], ids[50:350]])
    shared = together.prefill(batch, torch.tensor([40, 300, 7]), torch.tensor([2, 0, 1]))[0]
    torch.testing.assert_close(shared, single, atol=1e-12, rtol=0)
    next_alone = alone.decode(ids[:1], torch.tensor([40]))[0]
    next_shared = together.decode(ids[[5, 9, 0]], torch.tensor([300, 7, 40]))[2]
    torch.testing.assert_close(next_shared, next_alone, atol=1e-6, rtol=0)


@torch.inference_mode()
def test_spans_do_not_change_the_result(
    tiny_checkpoint: Path, ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(span_bytes: int) -> torch.Tensor:
        monkeypatch.setattr("nemo_ext.serving.embedded.model.SPAN_BYTES", span_bytes)
        model = _load(tiny_checkpoint)
        model.prefill(ids.view(4, 128), torch.tensor([128, 3, 50, 77]), torch.arange(4))
        return model.decode(ids[:4], torch.tensor([128, 3, 50, 77]))

    torch.testing.assert_close(decode(1), decode(1 << 30), atol=1e-12, rtol=0)


def test_bfloat16_weights_and_the_older_rope_spelling(
    llama3_checkpoint: Path, ids: torch.Tensor, tmp_path: Path
) -> None:
    import json

    model = LlamaForCausalLM.from_pretrained(llama3_checkpoint, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    raw = json.loads((tmp_path / "config.json").read_text())
    rope = raw.pop("rope_parameters")
    raw["rope_theta"] = rope.pop("rope_theta")
    raw["rope_scaling"] = rope
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    with torch.inference_mode():
        reference = model.float()(ids[None]).logits[0]
        torch.testing.assert_close(_load(tmp_path).all_logits(ids).float(), reference, atol=1e-4, rtol=0)


def test_refuses_what_it_cannot_compute(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        read_config(tmp_path)
    text = (tiny_checkpoint / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace("LlamaForCausalLM", "Qwen3ForCausalLM"))
    with pytest.raises(ValueError, match="Qwen3ForCausalLM"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(text.replace('"mlp_bias": false', '"mlp_bias": true'))
    with pytest.raises(ValueError, match="mlp_bias"):
        read_config(tmp_path)
