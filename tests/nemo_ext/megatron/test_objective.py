"""An objective is one new file: found by its name, refused by name, and the same loss on every topology."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import AutoModelForCausalLM

from launchers.estimates.step_time import step_time
from nemo_ext.machine.gpus import gpu_named
from nemo_ext.megatron import objective
from nemo_ext.megatron.check_settings import validate
from nemo_ext.megatron.data.token_folder import PackedData
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.models.published_shapes import SHAPES
from tests.nemo_ext.megatron.objectives import REFERENCE, save_pairs, write_objectives
from tests.nemo_ext.megatron.ranks import TOPOLOGIES_OF_TWO, join_ranks, run_ranks, start_ranks
from tests.nemo_ext.megatron.tiny import save_llama

PROGRAM = ("tests.nemo_ext.megatron.objectives", "train_runs")
STEPS = 3
PAIRS = 32
PREFERENCE = {"kind": "preference", "beta": 0.2}
SHIPPED = ["dpo", "ipo", "kto", "reward_bradley_terry", "reward_regression", "rpo", "sft"]
CASES: dict[int, dict[str, dict[str, Any]]] = {
    1: {"one process": {}, "global": {"packing": "global"}},
    2: TOPOLOGIES_OF_TWO,
    4: {"virtual pipeline, context": {"pp": 2, "vp": 2, "cp": 2}, "context of four": {"cp": 4}},
}
ELSEWHERE = [name for cases in CASES.values() for name in cases if name != "one process"]

pytestmark = pytest.mark.timeout(300)  # several launches of real processes; seconds each on a quiet machine


@pytest.fixture(scope="module")
def folder(workspace: Path) -> Path:
    return write_objectives(workspace / "objectives")


@pytest.fixture(scope="module")
def places(workspace: Path) -> tuple[Path, Path]:
    """A model and pairs."""
    save_llama(workspace / "objective_model", num_hidden_layers=4)
    return workspace / "objective_model", save_pairs(workspace / "pairs", 2 * PAIRS)


def case(output: Path, places: tuple[Path, Path], chosen: dict[str, Any], **changes: Any) -> dict[str, Any]:
    settings = {"objective": chosen, "global_batch_size": PAIRS, "lr": 1e-3, "pack_length": 128, "train_iters": STEPS}
    model, data = map(str, places)
    return {"hf": model, "data": data, "validation": data, "output": str(output), "settings": settings | changes}


@pytest.fixture(scope="module")
def runs(workspace: Path, folder: Path, places: tuple[Path, Path]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """{objective: {topology: the lines of metrics.jsonl}}"""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {"preference": {}, "baseline": {}}
    chosen: dict[str, dict[str, Any]] = {"preference": PREFERENCE, "baseline": {"kind": "baseline"}}
    all_of_it = {"preference": {}, "baseline": {"global_batch_size": 2 * PAIRS}}  # a step has every sample
    for size, topologies in CASES.items():
        names = [(kind, name) for kind in found for name in topologies]
        cases = [
            case(
                workspace / "objective" / kind / name.replace(" ", "_"),
                places,
                chosen[kind],
                **topologies[name],
                **all_of_it[kind],
            )
            | {"save": False}
            for kind, name in names
        ]
        results = run_ranks(size, *PROGRAM, {"cases": cases, "objectives": str(folder)})[0]
        for (kind, name), result in zip(names, results, strict=True):
            found[kind][name] = result["lines"]
    return found


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("kind", ["preference", "baseline"])
def test_losses_do_not_depend_on_topology(
    runs: dict[str, dict[str, list[dict[str, Any]]]], kind: str, name: str
) -> None:
    figures = ("loss", "grad_norm", "validation_loss")
    ours, theirs = ([{k: x[k] for k in figures if k in x} for x in runs[kind][n]] for n in (name, "one process"))
    assert len(ours) == len(theirs)
    for line, expected in zip(ours, theirs, strict=True):
        assert line == pytest.approx(expected, rel=2e-5)
    for line, expected in zip(runs[kind][name], runs[kind]["one process"], strict=True):
        assert line.get("figures", {}) == pytest.approx(expected.get("figures", {}), rel=1e-4, abs=1e-5)


def test_the_loss_and_its_gradient_are_those_of_transformers(
    runs: dict[str, dict[str, list[dict[str, Any]]]], places: tuple[Path, Path]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(places[0], dtype=torch.float32)
    data = PackedData.open(places[1])
    rewards = []
    for index in range(len(data)):
        tokens, mask = (torch.tensor(part.astype(int)) for part in data.sample(index))
        losses = cross_entropy(model(tokens[None]).logits[0, :-1], tokens[1:], reduction="none")
        rewards.append(PREFERENCE["beta"] * (-(losses * mask[1:]).sum() - float(data.columns[REFERENCE][index])))
    margins = torch.stack(rewards).view(-1, 2).diff(dim=1).neg()
    loss = -logsigmoid(margins).mean()
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    before, first = runs["preference"]["one process"][:2]
    assert before["validation_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert first["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert first["grad_norm"] == pytest.approx(float(norm), rel=1e-4)
    expected = {"reward_margin": float(margins.mean()), "accuracy": float((margins > 0).float().mean())}
    assert first["figures"] == pytest.approx(expected, rel=1e-4)


def test_a_first_pass_prepares_each_step_and_evaluation(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    for line in (x for x in runs["baseline"]["data"] if "loss" in x or "validation_loss" in x):
        assert line["figures"]["baseline"] == pytest.approx(line["figures"]["mean"], rel=1e-6)
        assert "never" not in line["figures"], "nothing was counted of it"


def test_training_learns(runs: dict[str, dict[str, list[dict[str, Any]]]]) -> None:
    losses = [line["loss"] for line in runs["preference"]["one process"] if "loss" in line]
    assert losses[-1] < losses[0] - 0.01
    assert "num_trained_tokens" not in runs["preference"]["one process"][1], "its count is of pairs"


def test_kinds_are_files(kinds: None) -> None:
    assert objective.kinds() == sorted([*SHIPPED, "baseline", "preference"])
    loaded = objective.load(PREFERENCE)
    assert objective.described(loaded) == '{"beta": 0.2, "kind": "preference"}'
    assert objective.described(objective.load({"kind": "preference"})) == '{"beta": 0.1, "kind": "preference"}'


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"kind": "ppo"},
            r"objective.kind='ppo': unknown; it may be one of \['baseline', 'dpo', .*'preference', .*'sft'\]",
        ),
        ({}, "objective.kind=None: unknown"),
        ({"kind": "preference", "bta": 1.0}, r"objective.bta: unknown for kind='preference'; .*\['beta', 'kind'\]"),
        ({"kind": "preference", "beta": "much"}, "objective.beta: "),
    ],
)
def test_what_it_is_not_is_refused_by_name(kinds: None, mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(TrainSettings(objective=mapping))


def test_loss_mean_is_of_objectives_that_count_tokens(kinds: None) -> None:
    with pytest.raises(ValueError, match="loss_mean=samples: objective.kind=preference has its own mean"):
        validate(TrainSettings(objective=PREFERENCE, loss_mean="samples"))


def test_a_step_of_pairs_is_planned_as_twice_the_samples(kinds: None) -> None:
    gpu, shape = gpu_named("h100"), SHAPES["Llama-3.1-8B"]
    pairs, samples = (step_time(shape, TrainSettings(objective=chosen), gpu) for chosen in (PREFERENCE, objective.SFT))
    assert pairs.packs == pytest.approx(2 * samples.packs, abs=1)
    assert objective.samples_per_step(PREFERENCE, 512) == 1024


def test_samples_without_its_columns_are_refused(kinds: None, tmp_path: Path) -> None:
    chosen = objective.load(PREFERENCE)
    with pytest.raises(ValueError, match="bare has no column reference_logprob, .*preference needs; it has none"):
        objective.require_columns(chosen, PackedData.open(save_pairs(tmp_path / "bare", 4, columns=())))
    with pytest.raises(ValueError, match="odd has 5 samples, .* takes them in runs of 2"):
        objective.require_columns(chosen, PackedData.open(save_pairs(tmp_path / "odd", 5)))
    objective.require_columns(chosen, PackedData.open(save_pairs(tmp_path / "even", 4)))


@pytest.mark.parametrize(("first", "second"), [(PREFERENCE, {"kind": "sft"}), ({"kind": "sft"}, PREFERENCE)])
def test_a_checkpoint_of_another_objective_is_refused(
    folder: Path, places: tuple[Path, Path], tmp_path: Path, first: dict[str, Any], second: dict[str, Any]
) -> None:
    cases = [case(tmp_path, places, chosen, train_iters=n) for n, chosen in ((1, first), (2, second))]
    processes = start_ranks(1, *PROGRAM, {"cases": cases, "objectives": str(folder)})
    with pytest.raises(AssertionError, match=r"trained on another objective \(.*, now .*\).*redo=true"):
        join_ranks(processes)
