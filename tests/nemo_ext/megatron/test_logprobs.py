"""Reference log-probabilities: those of transformers at every topology, resumable, and only for what they are of."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from nemo_ext.megatron.data.token_folder import PackedData
from tests.nemo_ext.megatron.preference_data import logprob, random_labels, random_pairs, save_labels, save_pairs
from tests.nemo_ext.megatron.ranks import TOPOLOGIES_OF_TWO, run_ranks
from tests.nemo_ext.megatron.tiny import save_llama

PROGRAMS = "tests.nemo_ext.megatron.preference_losses"
PAIRS = 24
CASES: dict[int, dict[str, dict[str, Any]]] = {
    1: {"one process": {}},
    2: TOPOLOGIES_OF_TWO,
    4: {"virtual pipeline, context": {"pp": 2, "vp": 2, "cp": 2}},
}

pytestmark = pytest.mark.timeout(300)  # several launches of real processes; seconds each on a quiet machine


@pytest.fixture(scope="module")
def places(workspace: Path) -> dict[str, Path]:
    model, other = workspace / "scored_model", workspace / "other_model"
    save_llama(model, num_hidden_layers=4)
    save_llama(other, seed=3, num_hidden_layers=4)
    return {
        "model": model,
        "other": other,
        "pairs": save_pairs(workspace / "scored_pairs", random_pairs(PAIRS), other),
        "labels": save_labels(workspace / "scored_labels", random_labels(PAIRS), other),
    }


def case(places: dict[str, Path], output: Path, **changes: Any) -> dict[str, Any]:
    stop = changes.pop("stop", None)
    data = {name: str(places[name]) for name in ("pairs", "labels")}
    return {
        "hf": str(places["model"]),
        "data": data,
        "output": str(output),
        "stop": stop,
        "settings": {"pack_length": 80} | changes,
    }


@pytest.fixture(scope="module")
def written(workspace: Path, places: dict[str, Path]) -> dict[str, Path]:
    """Topology -> the folder that was written."""
    found = {}
    for size, topologies in CASES.items():
        folders = {name: workspace / "logprobs" / name.replace(" ", "_") for name in topologies}
        cases = [case(places, folders[name], **topologies[name]) for name in topologies]
        run_ranks(size, PROGRAMS, "logprobs", {"cases": cases})
        found |= folders
    return found


@pytest.mark.parametrize("name", [name for cases in CASES.values() for name in cases])
def test_they_are_those_of_transformers(written: dict[str, Path], places: dict[str, Path], name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(places["model"], dtype=torch.float32)
    pairs = random_pairs(PAIRS)
    expected = [logprob(model, pair["prompt"], pair[side]) for pair in pairs for side in ("chosen", "rejected")]
    values = np.load(written[name] / "pairs" / "reference_logprob.npy")
    assert values.dtype == np.float32 and values == pytest.approx(expected, rel=1e-5, abs=1e-4)
    assert not (written[name] / "pairs" / "parts").exists()


def test_a_killed_job_goes_on(written: dict[str, Path], places: dict[str, Path], tmp_path: Path) -> None:
    cases = [
        case(places, tmp_path / "killed", stop=4),
        case(places, tmp_path / "killed"),
        case(places, tmp_path / "whole"),
    ]
    killed, resumed, whole = run_ranks(1, PROGRAMS, "logprobs", {"cases": cases})[0]
    assert killed["updates"] == 4 and resumed["updates"] == whole["updates"] - 4 > 0
    assert resumed["result"] == whole["result"]
    for name in ("pairs", "labels"):
        for file in ("reference_logprob.npy", "reference.json"):
            ours, theirs = (tmp_path / each / name / file for each in ("killed", "whole"))
            assert ours.read_bytes() == theirs.read_bytes()


def test_parts_of_another_model_are_not_taken(places: dict[str, Path], tmp_path: Path) -> None:
    other = case(places, tmp_path / "out") | {"hf": str(places["other"])}
    cases = [other | {"stop": 4}, case(places, tmp_path / "out"), case(places, tmp_path / "alone")]
    _, second, alone = run_ranks(1, PROGRAMS, "logprobs", {"cases": cases})[0]
    assert second["updates"] == alone["updates"]
    ours, theirs = (tmp_path / each / "pairs" / "reference_logprob.npy" for each in ("out", "alone"))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.fixture(scope="module")
def starts(workspace: Path, written: dict[str, Path], places: dict[str, Path]) -> dict[str, Any]:
    """What trainings with these log-probabilities begin with, or why they are refused."""
    kinds: dict[str, dict[str, Any]] = {
        "dpo": {"kind": "dpo"}, "kto": {"kind": "kto"}, "rpo": {"kind": "rpo", "eta": 0.5}, "ipo": {"kind": "ipo"},
    }  # fmt: skip
    cases = {}
    for name, chosen in kinds.items():
        data = "labels" if name == "kto" else "pairs"
        cases[name] = {
            "hf": str(places["model"]),
            "data": str(places[data]),
            "reference": str(written["one process"] / data),
            "output": str(workspace / "starts" / name),
            "settings": {"objective": chosen, "global_batch_size": PAIRS, "train_iters": 1, "pack_length": 80},
        }
    dpo = cases["dpo"]
    cases |= {
        "tensor": dpo | {"reference": str(written["tensor"] / "pairs")},
        "other model": dpo | {"hf": str(places["other"])},
        "other samples": dpo | {"data": str(places["labels"])},
        "other precision": dpo | {"precision": "bf16"},
        "nothing": dpo | {"reference": str(workspace)},
    }
    for name, each in cases.items():
        each["output"] = str(workspace / "starts" / name.replace(" ", "_"))
    return dict(zip(cases, run_ranks(1, PROGRAMS, "trainings", {"cases": list(cases.values())})[0], strict=True))


def test_a_training_that_is_its_own_reference_begins_at_what_the_formula_says(
    starts: dict[str, Any], places: dict[str, Path]
) -> None:
    first = {
        name: next(line for line in lines if "loss" in line)
        for name, lines in starts.items()
        if isinstance(lines, list)
    }
    assert first["dpo"]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["tensor"]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert first["kto"]["loss"] == pytest.approx(0.5, abs=1e-6)
    assert first["ipo"]["loss"] == pytest.approx((1 / 0.2) ** 2, rel=1e-5)
    rewards = PackedData.open(places["pairs"]).columns["reward"].reshape(-1, 2)
    gaps = 0.5 * (rewards[:, 0] - rewards[:, 1]).astype(np.float64)
    assert first["rpo"]["figures"]["margin_error"] == pytest.approx(-gaps.mean(), abs=1e-5)
    odds = 1 / (1 + np.exp(-gaps))
    assert first["rpo"]["loss"] == pytest.approx(
        float(np.mean(odds * np.log(2 * odds) + (1 - odds) * np.log(2 * (1 - odds)))), abs=1e-6
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other model", "reference log-probabilities are of the model .* run reference_logprobs with this model"),
        ("other samples", "other samples than those of"),
        ("other precision", "computed in fp32, and the training runs in bf16"),
        ("nothing", "not a finished reference_logprobs output"),
    ],
)
def test_log_probabilities_of_something_else_are_refused(starts: dict[str, Any], name: str, message: str) -> None:
    import re

    assert isinstance(starts[name], str) and re.search(message, starts[name])
