"""The forward pass against transformers, and against itself: the same bits alone and in any batch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from nemo_ext.serving.embedded.forward import model as model_module
from nemo_ext.serving.embedded.forward.checkpoint import read_config, read_weights
from nemo_ext.serving.embedded.forward.model import ALONE, WAYS, Llama, rows_keep_their_bits
from nemo_ext.serving.embedded.forward.pages import PAGE
from tests.nemo_ext.serving.tiny_checkpoint import make_checkpoint

Ints = NDArray[np.int64]


def _load(folder: Path, dtype: torch.dtype = torch.float32, slots: int = 4) -> Llama:
    config = read_config(folder)
    return Llama(config, read_weights(folder, dtype), slots, config.max_positions)


@pytest.fixture(params=["tiny_checkpoint", "llama3_checkpoint"])
def checkpoint(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def odd_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sizes that are no multiple of a vector: 5 heads of 6, one key head, 50 hidden, 37 intermediate, 333 tokens."""
    return make_checkpoint(
        tmp_path_factory.mktemp("odd"), hidden_size=50, num_heads=5, num_kv_heads=1, head_dim=6, intermediate_size=37,
        vocab_size=333,
    )  # fmt: skip


@pytest.fixture
def ids() -> Ints:
    """A prompt of the whole context: eight times llama3's original_max_position_embeddings."""
    return torch.randint(0, 333, (512,), generator=torch.Generator().manual_seed(0)).numpy()


def _reference(folder: Path, ids: Ints) -> torch.Tensor:
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)(torch.from_numpy(ids)[None]).logits[0]


def _every_logit(model: Llama, ids: Ints) -> torch.Tensor:
    return model.prefill_scored([ids], np.array([0]), [0])[1][0].float()


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_prefill_logits_equal_transformers(checkpoint: Path, ids: Ints, dtype: torch.dtype) -> None:
    reference = _reference(checkpoint, ids)
    assert reference.std() > 0.5
    torch.testing.assert_close(_every_logit(_load(checkpoint, dtype), ids), reference, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_decode_logits_equal_transformers(checkpoint: Path, ids: Ints) -> None:
    """Token by token in slot 0, over the border of a page, while another slot runs at other positions."""
    reference = _reference(checkpoint, ids)
    model, start = _load(checkpoint), 470
    logits = [model.prefill([ids[:start], np.zeros(7, dtype=np.int64)], np.array([0, 1]))[0]]
    for step, position in enumerate(range(start, len(ids))):
        tokens = np.array([ids[position], ids[step]])
        logits.append(model.decode(tokens, np.array([position, 7 + step]))[0])
    assert len(ids) - start > PAGE
    torch.testing.assert_close(torch.stack(logits), reference[start - 1 :], atol=1e-4, rtol=0)


def _alone(folder: Path, dtype: torch.dtype, prompt: Ints, answer: Ints) -> list[torch.Tensor]:
    """Logits after the prompt and after each token of the answer, with nothing else running."""
    model = _load(folder, dtype, slots=1)
    logits = [model.prefill([prompt], np.array([0]))]
    for step, token in enumerate(answer):
        logits.append(model.decode(np.array([token]), np.array([len(prompt) + step])))
    return [row[0] for row in logits]


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["tiny_checkpoint", "llama3_checkpoint", "odd_checkpoint"])
def test_a_sequence_gets_the_same_bits_alone_and_in_any_batch(
    request: pytest.FixtureRequest, name: str, dtype: torch.dtype
) -> None:
    """Prompts of 1 to 300 tokens, 70 sequences of which some end early, their pages and slots taken by the others."""
    folder, draw = request.getfixturevalue(name), np.random.default_rng(0)
    prompts = [draw.integers(0, 333, length) for length in [1, 2, 31, 32, 33, 300, *draw.integers(1, 120, 64)]]
    answers = [draw.integers(0, 333, 40) for _ in prompts]
    model = _load(folder, dtype, slots=len(prompts))
    got = {number: [row] for number, row in enumerate(model.prefill(prompts, np.arange(len(prompts))))}
    running = list(range(len(prompts)))
    for step in range(40):
        positions = np.array([len(prompts[n]) + step for n in running])
        logits = model.decode(np.array([answers[n][step] for n in running]), positions)
        for row, number in zip(logits, running, strict=True):
            got[number].append(row)
        leaving = int(draw.integers(len(running))) if len(running) > 6 else None
        if leaving is not None:
            model.pages.release(leaving)
            last = running.pop()
            if leaving < len(running):
                model.pages.rename(len(running), leaving)
                running[leaving] = last
    for number in [0, 1, 2, 3, 4, 5, *running[:3]]:
        expected = _alone(folder, dtype, prompts[number], answers[number][: len(got[number]) - 1])
        assert torch.equal(torch.stack(got[number]), torch.stack(expected)), f"prompt of {len(prompts[number])} tokens"


@torch.inference_mode()
def test_one_sequence_after_another_where_no_batching_keeps_the_bits(
    tiny_checkpoint: Path, ids: Ints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU whose products depend on the number of rows in any case: slower, and as true."""
    matmul = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda x, y: matmul(x, y) * (1 + 1e-6 * len(x)))
    model = _load(tiny_checkpoint)
    assert model.way == ALONE
    prompts = [ids[:40], ids[40:47], ids[50:90]]
    logits, scored = model.prefill_scored(prompts, np.arange(3), [1])
    step = model.decode(ids[:3], np.array([40, 7, 40]))
    for number, prompt in enumerate(prompts):
        alone = _load(tiny_checkpoint)
        last, every = alone.prefill_scored([prompt], np.array([0]), [0])
        assert torch.equal(last[0], logits[number])
        assert number not in scored or torch.equal(every[0], scored[number])
        assert torch.equal(alone.decode(ids[number : number + 1], np.array([len(prompt)]))[0], step[number])


def test_whole_passes_are_checked_and_not_products_alone(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a norm or an activation treats the last elements of an array otherwise than the others."""
    silu = torch.nn.functional.silu
    monkeypatch.setattr(model_module.F, "silu", lambda x: silu(x) * (1 + 1e-6 * (len(x) > 60)))
    assert _load(tiny_checkpoint).way == ALONE


@torch.inference_mode()
def test_many_prompt_tokens_go_through_in_parts(tiny_checkpoint: Path, ids: Ints) -> None:
    """More rows than one product takes; each prompt gets the bits it gets alone."""
    prompts = [ids[start : start + 160] for start in range(0, 320, 40)]
    assert sum(len(prompt) for prompt in prompts) > 4 * max(way.rows for way in WAYS)
    together = _load(tiny_checkpoint, slots=8).prefill(prompts, np.arange(8))
    for prompt, row in zip(prompts, together, strict=True):
        assert torch.equal(_load(tiny_checkpoint).prefill([prompt], np.array([2]))[0], row)


@torch.inference_mode()
def test_copied_pages_continue_alike(tiny_checkpoint: Path, ids: Ints) -> None:
    model = _load(tiny_checkpoint)
    model.prefill([ids[:45]], np.array([0]))
    model.pages.copy(0, 1, 45)
    logits = model.decode(ids[[7, 7]], np.array([45, 45]))
    assert torch.equal(logits[0], logits[1])
    model.pages.release(0)
    model.pages.rename(1, 0)
    assert model.pages.num_used == 2
    other = model.decode(ids[[9]], np.array([46]))[0]
    assert torch.equal(other, _alone(tiny_checkpoint, torch.float32, ids[:45], ids[[7, 9]])[-1])


def test_a_product_that_depends_on_the_batch_is_noticed(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a library would that adds up long batches in another order: fewer rows at once; none that pass: say so."""
    matrix = torch.randn(96, 64)

    class Uneven(torch.Tensor):
        allowed = staticmethod(lambda rows: True)

        def __rmatmul__(self, x: torch.Tensor) -> torch.Tensor:
            whole = x.new_tensor([[float(row.sum()) for row in x]]).T * torch.ones(64)
            return whole if self.allowed(len(x)) else whole * (1 + 1e-6)

    uneven = matrix.as_subclass(Uneven)
    for allowed, keeps in (
        (lambda rows: True, WAYS),
        (lambda rows: rows <= 64, [way for way in WAYS if way.rows <= 64]),
        (lambda rows: rows % 8 == 0, [way for way in WAYS if way.multiple > 4]),
        (lambda rows: rows <= 20, []),
    ):
        Uneven.allowed = staticmethod(allowed)
        assert [way for way in WAYS if rows_keep_their_bits(uneven, way)] == list(keeps)
    monkeypatch.setattr(model_module, "rows_keep_their_bits", lambda matrix, way: False)
    assert _load(tiny_checkpoint).way == ALONE


def test_bfloat16_weights_and_the_older_rope_spelling(llama3_checkpoint: Path, ids: Ints, tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(llama3_checkpoint, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    raw = json.loads((tmp_path / "config.json").read_text())
    rope = raw.pop("rope_parameters")
    raw["rope_theta"] = rope.pop("rope_theta")
    raw["rope_scaling"] = rope
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    with torch.inference_mode():
        reference = model.float()(torch.from_numpy(ids)[None]).logits[0]
        torch.testing.assert_close(_every_logit(_load(tmp_path), ids), reference, atol=1e-4, rtol=0)


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
