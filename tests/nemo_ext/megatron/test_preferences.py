"""Objectives of preferences and rewards: their formulas, on every topology, and one pair's loss without the others."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from nemo_ext.megatron import objective
from nemo_ext.megatron.check_settings import validate
from nemo_ext.megatron.data.batches import Batches
from nemo_ext.megatron.data.token_folder import PackedData
from nemo_ext.megatron.objectives.rpo import kl_of_odds
from nemo_ext.megatron.settings import TrainSettings
from tests.nemo_ext.megatron.preference_data import (
    ATTRIBUTES,
    NO_RATING,
    NUM_RATINGS,
    logprob,
    random_labels,
    random_pairs,
    save_labels,
    save_pairs,
)
from tests.nemo_ext.megatron.ranks import TOPOLOGIES_OF_TWO, run_ranks
from tests.nemo_ext.megatron.tiny import save_llama

PROGRAM = ("tests.nemo_ext.megatron.programs", "train_runs")
PAIRS, STEPS = 24, 3
KINDS: dict[str, dict[str, Any]] = {
    "dpo": {"kind": "dpo", "beta": 0.2, "label_smoothing": 0.1, "sft_weight": 0.3},
    "ipo": {"kind": "ipo", "beta": 0.3},
    "rpo": {"kind": "rpo", "beta": 0.2, "eta": 0.7},
    "rpo fwd": {"kind": "rpo", "beta": 0.2, "distance": "fwd_kl"},
    "rpo squared": {"kind": "rpo", "beta": 0.2, "distance": "squared"},
    "kto": {"kind": "kto", "beta": 0.2, "desirable_weight": 1.5},
    "bradley-terry": {"kind": "reward_bradley_terry", "strength": "scale", "center_weight": 0.01},
    "regression": {"kind": "reward_regression", "attributes": ATTRIBUTES},
}
CASES: dict[int, dict[str, dict[str, Any]]] = {
    1: {"one process": {}, "many packs": {"pack_length": 80}},
    2: TOPOLOGIES_OF_TWO,
    4: {"virtual pipeline, context": {"pp": 2, "vp": 2, "cp": 2}, "data, tensor": {"dp": 2, "tp": 2}},
}
ELSEWHERE = [name for cases in CASES.values() for name in cases if name != "one process"]
Lines = list[dict[str, Any]]

pytestmark = pytest.mark.timeout(300)  # several launches of real processes; seconds each on a quiet machine


@pytest.fixture(scope="module")
def places(workspace: Path) -> dict[str, Path]:
    """A model, and pairs and labelled samples with the log-probabilities of another one."""
    model, reference = workspace / "preference_model", workspace / "preference_reference"
    save_llama(model, num_hidden_layers=4)
    save_llama(reference, seed=1, num_hidden_layers=4)
    return {
        "model": model,
        "pairs": save_pairs(workspace / "preference_pairs", random_pairs(PAIRS), reference),
        "ratings": save_pairs(workspace / "preference_ratings", random_pairs(PAIRS), reference, "ratings"),
        "labels": save_labels(workspace / "preference_labels", random_labels(PAIRS), reference),
    }


def case(output: Path, places: dict[str, Path], chosen: dict[str, Any], **changes: Any) -> dict[str, Any]:
    data = str(places[objective.load(chosen).units])
    units = 2 * PAIRS if chosen["kind"] == "reward_regression" else PAIRS
    settings = {"objective": chosen, "global_batch_size": units, "lr": 1e-3, "pack_length": 128, "train_iters": STEPS}
    both = {"hf": str(places["model"]), "data": data, "validation": data, "output": str(output), "save": False}
    return both | {"settings": settings | changes}


@pytest.fixture(scope="module")
def runs(workspace: Path, places: dict[str, Path]) -> dict[tuple[str, str], Lines]:
    """{(name of KINDS, topology): lines of metrics.jsonl}"""
    found = {}
    for size, topologies in CASES.items():
        names = [(kind, name) for kind in KINDS for name in topologies]
        cases = [
            case(
                workspace / "preferences" / f"{kind} {name}".replace(" ", "_"), places, KINDS[kind], **topologies[name]
            )
            for kind, name in names
        ]
        results = run_ranks(size, *PROGRAM, {"cases": cases})[0]
        found |= {name: result["lines"] for name, result in zip(names, results, strict=True)}
    return found


@pytest.mark.parametrize("name", ELSEWHERE)
@pytest.mark.parametrize("kind", KINDS)
def test_losses_do_not_depend_on_topology(runs: dict[tuple[str, str], Lines], kind: str, name: str) -> None:
    ours, theirs = runs[kind, name], runs[kind, "one process"]
    assert len(ours) == len(theirs) and sum("loss" in line for line in ours) == STEPS
    for line, expected in zip(ours, theirs, strict=True):
        scalars = [name for name in ("loss", "validation_loss", "grad_norm") if name in expected]
        assert [line[name] for name in scalars] == pytest.approx([expected[name] for name in scalars], rel=1e-5)
        assert line.get("figures", {}) == pytest.approx(expected.get("figures", {}), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss(runs: dict[tuple[str, str], Lines], kind: str) -> None:
    losses = [line["validation_loss"] for line in runs[kind, "one process"] if "validation_loss" in line]
    assert losses[-1] < losses[0]


def test_what_is_logged_of_ratings(runs: dict[tuple[str, str], Lines], places: dict[str, Path]) -> None:
    figures = next(x["figures"] for x in runs["regression", "one process"] if "figures" in x)
    assert sorted(figures) == [f"error_{name}" for name in ATTRIBUTES]
    ratings = PackedData.open(places["pairs"]).columns["attributes"]
    assert (ratings == NO_RATING).any()
    assert max(figures.values()) < 5, "a missing rating is no error of a hundred"


odds = st.floats(-30, 30)


@given(odds, odds)
def test_the_distance_of_odds_is_its_formula(first: float, second: float) -> None:
    """In float64 against the definition; 0 where both are the same, and never negative."""
    a, b = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    p, q = 1 / (1 + math.exp(-first)), 1 / (1 + math.exp(-second))
    no_p, no_q = 1 / (1 + math.exp(first)), 1 / (1 + math.exp(second))
    expected = p * math.log(p / q) + no_p * math.log(no_p / no_q)
    assert float(kl_of_odds(a, b)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert float(kl_of_odds(a, a)) == pytest.approx(0, abs=1e-15)
    assert float(kl_of_odds(a, b)) >= -1e-12


def test_rpo_is_nothing_where_the_rewards_differ_as_the_model_does() -> None:
    margin = torch.tensor([0.7, -3.0, 20.0], dtype=torch.float64)
    ours = margin.clone().requires_grad_()
    loss = kl_of_odds(margin, ours).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-15)
    assert ours.grad is not None and ours.grad.abs().max() < 1e-15


def test_rpo_becomes_dpo_as_the_rewards_differ_more() -> None:
    ours = torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64)
    dpo = -torch.nn.functional.logsigmoid(ours)
    distances = [float((kl_of_odds(torch.full_like(ours, gap), ours) - dpo).abs().max()) for gap in (2, 5, 10, 40)]
    assert distances == sorted(distances, reverse=True) and distances[-1] < 1e-12


@pytest.mark.parametrize("kind", ["dpo", "rpo", "kto", "bradley-terry", "regression"])
def test_the_first_loss_is_the_formulas(
    runs: dict[tuple[str, str], Lines], places: dict[str, Path], kind: str
) -> None:
    """In float64 numpy, from transformers' log-probabilities or scores of each sample."""
    line = next(x for x in runs[kind, "one process"] if "loss" in x)
    data = PackedData.open(places[objective.load(KINDS[kind]).units])
    assert line["loss"] == pytest.approx(FORMULAS[kind](places["model"], data), rel=2e-5)


def _logprobs(model: Path, data: PackedData) -> np.ndarray:
    loaded, found = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), []
    for index in range(len(data)):
        tokens, mask = (part.astype(int).tolist() for part in data.sample(index))
        prompt = mask.index(1)
        found.append(logprob(loaded, tokens[:prompt], tokens[prompt:]))
    return np.asarray(found) - data.columns["reference_logprob"]


def _softplus(values: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, values)


def _dpo(model: Path, data: PackedData) -> float:
    ratios = _logprobs(model, data).reshape(-1, 2)
    margins = 0.2 * (ratios[:, 0] - ratios[:, 1])
    loaded = ratios[:, 0] + data.columns["reference_logprob"].reshape(-1, 2)[:, 0]
    tokens = np.asarray([data.sample(index)[1].sum() for index in range(0, len(data), 2)])
    return float(np.mean(0.9 * _softplus(-margins) + 0.1 * _softplus(margins) - 0.3 * loaded / tokens))


def _rpo(model: Path, data: PackedData) -> float:
    ratios, rewards = _logprobs(model, data).reshape(-1, 2), data.columns["reward"].reshape(-1, 2).astype(np.float64)
    ours, theirs = 0.2 * (ratios[:, 0] - ratios[:, 1]), 0.7 * (rewards[:, 0] - rewards[:, 1])
    p, q = 1 / (1 + np.exp(-theirs)), 1 / (1 + np.exp(-ours))
    return float(np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))


def _kto(model: Path, data: PackedData) -> float:
    ratios = _logprobs(model, data).reshape(-1, 2)
    baseline = max(0.0, ratios[:, 1].mean())
    wanted = data.columns["desirable"].reshape(-1, 2)[:, 0] > 0
    distance = 0.2 * (ratios[:, 0] - baseline) * np.where(wanted, 1, -1)
    return float(np.mean(np.where(wanted, 1.5, 1.0) * (1 - 1 / (1 + np.exp(-distance)))))


def _scores(model: Path, data: PackedData, outputs: int) -> np.ndarray:
    """[samples, outputs] of a head that the training draws by its seed."""
    from nemo_ext.megatron.weights.hf import RandomSource
    from nemo_ext.models.head import SCORE, Regression
    from nemo_ext.models.shape import ModelShape

    shape = ModelShape.from_hf(model).with_head(Regression(outputs))
    head = RandomSource(shape, TrainSettings().seed).read(SCORE)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).model
    with torch.no_grad():
        last = [
            base(torch.tensor([data.sample(i)[0].astype(int).tolist()])).last_hidden_state[0, -1]
            for i in range(len(data))
        ]
    return (torch.stack(last) @ head.T).double().numpy()


def _bradley_terry(model: Path, data: PackedData) -> float:
    scores, strength = _scores(model, data, 1).reshape(-1, 2), data.columns["strength"].reshape(-1, 2)[:, 0]
    return float(np.mean(strength * _softplus(scores[:, 1] - scores[:, 0]) + 0.01 * scores.sum(1) ** 2))


def _regression(model: Path, data: PackedData) -> float:
    ratings = data.columns["attributes"].astype(np.float64)
    return float(((_scores(model, data, NUM_RATINGS) - ratings) ** 2)[ratings != NO_RATING].mean())


FORMULAS = {"dpo": _dpo, "rpo": _rpo, "kto": _kto, "bradley-terry": _bradley_terry, "regression": _regression}


def test_mismatched_samples_are_run_forward_and_the_others_trained(places: dict[str, Path]) -> None:
    kto = objective.load(KINDS["kto"])
    batches = Batches(PackedData.open(places["labels"]), PAIRS, 80, seed=3, samples_per_unit=2)
    drawn = batches.step(0)
    own, mismatched = (batches.of_places(drawn, each) for each in (kto.loss_samples, kto.first_pass_samples))
    assert sorted(i for pack in own for i in pack) == list(range(0, 2 * PAIRS, 2))
    assert sorted(i for pack in mismatched for i in pack) == list(range(1, 2 * PAIRS, 2))
    assert len(own) < len(drawn) and batches.of_places(drawn, None) is drawn
    for packs in (own, mismatched):
        assert max(sum(int(batches.data.lengths[i]) for i in pack) for pack in packs) <= 80


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_a_step_of_one_kind_alone_is_said(share: float) -> None:
    remark = objective.load(KINDS["kto"]).remark({"desirable_share": share})
    assert bool(remark) == (share in (0.0, 1.0))
    assert not share or not remark or "all of its samples are desirable" in remark


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"kind": "dpo", "beta": 0}, "beta=0.0 must be above 0"),
        ({"kind": "dpo", "label_smoothing": 0.5}, r"label_smoothing=0.5 must be in \[0, 0.5\)"),
        ({"kind": "dpo", "sft_weight": -1}, "sft_weight=-1.0 at least 0"),
        ({"kind": "rpo", "distance": "kl"}, "distance='kl'; it may be one of bwd_kl, fwd_kl, squared"),
        ({"kind": "kto", "desirable_weight": -1}, "the weights at least 0"),
        ({"kind": "reward_bradley_terry", "strength": "much"}, "strength='much' may be one of ignored, margin, scale"),
        ({"kind": "reward_regression"}, "attributes"),
        ({"kind": "reward_regression", "attributes": []}, "name at least one"),
        ({"kind": "reward_regression", "attributes": ["a", "a"]}, "none twice"),
    ],
)
def test_settings_that_make_no_sense(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(TrainSettings(objective=mapping))


@pytest.mark.parametrize(
    ("kind", "data"), [("kto", "pairs"), ("rpo", "labels"), ("regression", "labels"), ("dpo", "ratings")]
)
def test_samples_of_another_kind_are_refused(places: dict[str, Path], kind: str, data: str) -> None:
    with pytest.raises(ValueError, match=f"holds {data}, and objective.kind={KINDS[kind]['kind']} trains on"):
        objective.require_columns(objective.load(KINDS[kind]), PackedData.open(places[data]))


def test_changing_one_pair_leaves_the_others_losses(places: dict[str, Path], tmp_path: Path) -> None:
    """Bit for bit, in a pack of its own and in the same pack."""
    pairs = random_pairs(4)
    changed = [*pairs[:3], pairs[3] | {"rejected": pairs[3]["rejected"][::-1]}]
    folders = [
        save_pairs(tmp_path / str(number), each, places["model"]) for number, each in enumerate((pairs, changed))
    ]
    first, second = run_ranks(
        1,
        "tests.nemo_ext.megatron.preference_losses",
        "losses",
        {"hf": str(places["model"]), "data": list(map(str, folders))},
    )[0]
    assert len(first) == len(second) == len(KINDS) - 1
    for kind, losses in first.items():
        others = np.asarray(losses[:3]) == np.asarray(second[kind][:3])
        assert others.all() and losses[3] != second[kind][3], kind
