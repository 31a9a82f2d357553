"""Training with real processes: every topology gives one model, and a loss that no packing can change."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_ext.megatron.weights.torch_dist import TorchDistReader
from tests.nemo_ext.megatron.families import save_family
from tests.nemo_ext.megatron.ranks import TOPOLOGIES_OF_TWO, run_ranks
from tests.nemo_ext.megatron.tiny import save_data, save_llama

PROGRAMS = "tests.nemo_ext.megatron.programs"
STEPS = 5
LONGER = 10
"""Steps of "one process", to see it learn."""

pytestmark = pytest.mark.timeout(300)  # several launches of real processes; seconds each on a quiet machine

# Cases by number of processes. The "tied" model has two layers, the others four.
ONE: dict[str, dict[str, Any]] = {
    "one process": {},
    "shorter packs": {"pack_length": 64},
    "global packs": {"packing": "global"},
    "random": {"init": "random"},
    "bf16": {"precision": "bf16"},
    "clipped": {"clip_grad": 0.5},
    "per sample": {"loss_mean": "samples"},
    "recompute all": {"recompute_granularity": "full"},
    "recompute two of four": {"recompute_granularity": "full", "recompute_method": "block", "recompute_num_layers": 2},
    "recompute attention": {"recompute_granularity": "selective"},
    "tied": {},
    "biases": {},
}
TWO: dict[str, dict[str, Any]] = {
    **TOPOLOGIES_OF_TWO,
    "clipped, tensor": {"tp": 2, "clip_grad": 0.5},
    "clipped, pipeline": {"pp": 2, "clip_grad": 0.5},
    "clipped, virtual pipeline": {"pp": 2, "vp": 2, "clip_grad": 0.5},
    "global packs, data": {"dp": 2, "packing": "global"},
    "recompute, sequence, full": {"tp": 2, "sequence_parallel": True, "recompute_granularity": "full"},
    "random, pipeline": {"init": "random", "pp": 2},
    "random, tensor": {"init": "random", "tp": 2},
    "tied, pipeline": {"pp": 2},
    "biases, sequence": {"tp": 2, "sequence_parallel": True},
}
FOUR: dict[str, dict[str, Any]] = {
    "tensor, pipeline": {"tp": 2, "pp": 2},
    "sequence, virtual pipeline": {"tp": 2, "sequence_parallel": True, "pp": 2, "vp": 2},
    "sequence, data": {"tp": 2, "sequence_parallel": True, "dp": 2},
    "sequence, context": {"tp": 2, "sequence_parallel": True, "cp": 2},
    "virtual pipeline, context": {"pp": 2, "vp": 2, "cp": 2},
    "virtual pipeline, data, overlapped": {"pp": 2, "vp": 2, "dp": 2, "overlap_communication": True},
    "context, data, whole optimizer": {"cp": 2, "dp": 2, "use_distributed_optimizer": False},
    "context of four": {"cp": 4},
    "pipeline of four": {"pp": 4},
    "per sample, context, data": {"cp": 2, "dp": 2, "loss_mean": "samples"},
    "per sample, virtual pipeline, data": {"pp": 2, "vp": 2, "dp": 2, "loss_mean": "samples"},
}
SAVED = ("bf16", "tensor")
"""Whose checkpoints are looked at."""
REFERENCES = ("random", "tied", "biases", "clipped", "per sample", "global packs")


def reference(name: str) -> str:
    """The one-process case that a case must equal."""
    return next((start for start in REFERENCES if name.startswith(start + ",")), "one process")


@pytest.fixture(scope="module")
def runs(workspace: Path, tied: Path, data: Path) -> dict[str, dict[str, Any]]:
    """The steps of each case: {name: {"lines", "result"}} as rank 0 saw them."""
    deep = workspace / "deep"
    save_llama(deep, num_hidden_layers=4)
    models = {"tied": tied, "biases": save_family(workspace / "biases_model", "qwen2")}
    save_data(workspace / "held_out", num_samples=32)  # the first of `data`
    found: dict[str, dict[str, Any]] = {}
    for size, cases in ((1, ONE), (2, TWO), (4, FOUR)):
        arguments = [
            {
                "hf": str(models.get(name.split(",")[0], deep)),
                "data": str(data),
                "validation": str(workspace / "held_out"),
                "output": str(workspace / name.replace(" ", "_")),
                "save": name in SAVED,
                "settings": {
                    "train_iters": LONGER if name == "one process" else STEPS,
                    "global_batch_size": 32,
                    "pack_length": 128,
                    "lr": 1e-3,
                    "save_interval": 100,
                    "eval_interval": STEPS,
                    "log_interval": 5,
                    **changes,
                },
            }
            for name, changes in cases.items()
        ]
        results = run_ranks(size, PROGRAMS, "train_runs", {"cases": arguments})
        assert [r["result"] for r in results[0]] == [r["result"] for r in results[-1]], "ranks return the same"
        found |= dict(zip(cases, results[0], strict=True))
    return found


def evaluations(run: dict[str, Any]) -> dict[int, float]:
    return {line["step"]: line["validation_loss"] for line in run["lines"] if "validation_loss" in line}


def losses(run: dict[str, Any], figure: str = "loss") -> list[float]:
    return [line[figure] for line in run["lines"] if "loss" in line]


SAME = [*TWO, *FOUR, "shorter packs", "recompute all", "recompute two of four", "recompute attention"]


@pytest.mark.parametrize("name", SAME)
def test_losses_do_not_depend_on_topology_or_packing(runs: dict[str, dict[str, Any]], name: str) -> None:
    expected = runs[reference(name)]
    for figure in ("loss", "grad_norm"):
        ours = losses(runs[name], figure)
        assert len(ours) == STEPS and ours == pytest.approx(losses(expected, figure)[:STEPS], rel=1e-5)
    ours, theirs = (evaluations(run) for run in (runs[name], expected))
    assert ours == pytest.approx({step: theirs[step] for step in (0, STEPS)}, rel=1e-5)


@pytest.mark.parametrize("name", REFERENCES)
def test_the_references_differ(runs: dict[str, dict[str, Any]], name: str) -> None:
    """Else the comparisons above would not show that a setting had been lost on the way to another topology."""
    assert losses(runs[name])[1:] != pytest.approx(losses(runs["one process"])[1:STEPS], rel=2e-5)


def test_training_learns(runs: dict[str, dict[str, Any]]) -> None:
    found = evaluations(runs["one process"])
    assert list(found) == [0, STEPS, LONGER]
    assert found[LONGER] < found[0] - 0.2


def test_random_weights_start_at_the_uniform_loss_without_padding(runs: dict[str, dict[str, Any]]) -> None:
    """log(250), the real vocabulary, not log(252), the padded one; initial weights of 0.1 add a little."""
    first = runs["random"]["lines"][0]["validation_loss"]
    assert math.log(250) - 0.05 < first < math.log(250) + 0.3


def test_bf16_follows_fp32(runs: dict[str, dict[str, Any]]) -> None:
    plain = losses(runs["one process"])[:STEPS]
    assert losses(runs["bf16"]) == pytest.approx(plain, rel=0.01)
    assert losses(runs["bf16"]) != plain
    reader = TorchDistReader(Path(runs["bf16"]["result"]["checkpoint"]))
    key = "output_layer.weight"
    assert reader.dtype(key) == torch.bfloat16
    assert reader.dtype(reader.main_key(key)) == torch.float32


def test_metrics_have_every_figure(runs: dict[str, dict[str, Any]], data: Path) -> None:
    lines = [line for line in runs["one process"]["lines"] if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, LONGER + 1))
    assert {line["lr"] for line in lines} == {1e-3}
    assert [line["epoch"] for line in lines] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]  # 64 samples, 32 per step
    for line in lines:
        assert line["grad_norm"] > 0
        assert 0 < line["num_trained_tokens"] < line["num_tokens"]


def test_vocabulary_padding_stays_zero(runs: dict[str, dict[str, Any]]) -> None:
    reader = TorchDistReader(Path(runs["tensor"]["result"]["checkpoint"]))
    for key in ("embedding.word_embeddings.weight", "output_layer.weight"):
        weight = reader.read(key)
        assert weight.shape[0] == 256, "250 padded to a multiple of 2 x 4"
        assert weight[250:].abs().max() == 0
        assert weight[:250].abs().min(dim=1).values.max() > 0


@pytest.fixture(scope="module")
def single(workspace: Path, llama31: Path, data: Path) -> dict[str, Any]:
    changed = workspace / "changed"
    save_data(changed)
    tokens = bytearray((changed / "tokens.bin").read_bytes())
    from nemo_ext.megatron.data.token_folder import PackedData

    offsets = PackedData.open(data).offsets
    for at in range(int(offsets[2]), int(offsets[3])):
        tokens[4 * at] = (tokens[4 * at] + 1) % 250
    (changed / "tokens.bin").write_bytes(bytes(tokens))
    argument = {"hf": str(llama31), "data": str(data), "changed": str(changed)}
    result: dict[str, Any] = run_ranks(1, PROGRAMS, "single", argument)[0]
    return result


def test_a_token_loses_the_same_packed_and_alone(single: dict[str, Any]) -> None:
    assert single["packed"] < 1e-5


def test_a_sample_does_not_see_its_pack_neighbours(single: dict[str, Any]) -> None:
    assert single["neighbours"]["inside"] > 0.01, "the changed sample's own losses must move"
    assert single["neighbours"]["outside"] == 0


def test_weight_decay_reaches_matrices_at_every_step(single: dict[str, Any]) -> None:
    """The trap: megatron's scheduler overwrites each group's weight decay with its own idea of it."""
    for moment in single["schedule"]:
        decays = {multiplier: decay for multiplier, decay, _, _ in moment["groups"]}
        assert decays == {1.0: 0.123, 0.0: 0.0}
    counts = {multiplier: count for multiplier, _, _, count in single["schedule"][0]["groups"]}
    assert counts == {1.0: 2 + 2 * 4, 0.0: 1 + 2 * 2}, "matrices decay, norms do not"


def test_learning_rate_warms_up_and_decays(single: dict[str, Any]) -> None:
    rates = {moment["step"]: moment["groups"][0][2] for moment in single["schedule"]}
    assert rates[0] == 0
    assert rates[1] == pytest.approx(0.5e-3)
    assert rates[2] == pytest.approx(1e-3)
    assert rates[50] == pytest.approx(0, abs=1e-9)
