"""Bad steps are found, named, left out or stopped at; real training with a NaN in one token's embedding."""

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nemo_ext.megatron.data.token_folder import PackedDataWriter
from nemo_ext.megatron.record.bad_steps import MIN_HISTORY, BadStep, Guard, badness
from nemo_ext.megatron.settings import TrainSettings
from tests.nemo_ext.megatron.ranks import join_ranks, run_ranks, start_ranks

PROGRAM = ("tests.nemo_ext.megatron.programs", "train_runs")
POISON = 249  # the token whose embedding is NaN
SAMPLE = 5  # the only sample that has it


def guard(**settings: Any) -> Guard:
    return Guard(TrainSettings(**settings))


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(allow_nan=True, allow_infinity=True))
def test_without_a_spike_factor_exactly_what_is_not_finite_is_bad(loss: float, norm: float) -> None:
    assert (guard().reason(loss, norm) is None) == (math.isfinite(loss) and math.isfinite(norm))


def test_a_spike_is_measured_against_the_last_accepted_losses() -> None:
    judge = guard(loss_spike_factor=2.0)
    assert judge.reason(100.0, 1.0) is None, "no history yet"
    for _ in range(MIN_HISTORY):
        judge.accept(1.0)
    assert judge.reason(1.9, 1.0) is None
    assert "over 2 times" in str(judge.reason(2.1, 1.0))


def test_too_many_in_a_row_stop_it_and_a_good_one_starts_the_count_again() -> None:
    judge = guard(on_bad_step="skip", max_skipped_steps=2)
    judge.skip(1, "loss is nan", [3])
    judge.accept(1.0)
    judge.skip(3, "loss is nan", [3])
    with pytest.raises(BadStep, match=r"step 4: loss is nan; .*\[7\].*max_skipped_steps"):
        judge.skip(4, "loss is nan", [7])


def test_its_state_survives_a_checkpoint() -> None:
    judge, again = guard(on_bad_step="skip"), guard(on_bad_step="skip")
    judge.accept(1.5)
    judge.skip(2, "loss is inf", [])
    again.load_state_dict(judge.state_dict())
    assert again.state_dict() == judge.state_dict()


def test_nan_is_the_worst_loss() -> None:
    assert max([3.0, float("nan"), 1.0], key=badness) != 3.0


@pytest.fixture(scope="module")
def poisoned(workspace: Path, llama31: Path) -> dict[str, str]:
    """A model whose token 249 has a NaN embedding, and data of which sample 5 has that token."""
    model, folder = workspace / "poisoned_model", workspace / "poisoned_data"
    shutil.copytree(llama31, model)
    tensors = load_file(model / "model.safetensors")
    tensors["model.embed_tokens.weight"][POISON] = float("nan")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    generator = torch.Generator().manual_seed(0)
    with PackedDataWriter(folder, {}) as writer:
        for index in range(32):
            tokens = torch.randint(0, POISON, (30,), generator=generator).tolist()
            writer.add([POISON if index == SAMPLE else tokens[0], *tokens[1:]], [0] * 10 + [1] * 20)
    return {"hf": str(model), "data": str(folder)}


def case(poisoned: dict[str, str], output: Path, **changes: Any) -> dict[str, Any]:
    # Two steps an epoch, packs of two samples.
    settings = {"train_iters": 8, "global_batch_size": 16, "lr": 1e-3, "pack_length": 64, "dp": 2, **changes}
    return {**poisoned, "output": str(output), "settings": settings}


def test_training_goes_on_without_the_bad_steps(poisoned: dict[str, str], workspace: Path) -> None:
    run = run_ranks(2, *PROGRAM, {"cases": [case(poisoned, workspace / "skips", on_bad_step="skip")]})[0][0]
    lines = [line for line in run["lines"] if "num_tokens" in line]
    skipped = [line for line in lines if "skipped" in line]
    assert len(lines) == 8
    assert len(skipped) == run["result"]["skipped_steps"] == 4, "once in each epoch of two steps"
    assert all("loss is nan" in line["skipped"] for line in skipped)
    good = [line["loss"] for line in lines if "skipped" not in line]
    assert all(math.isfinite(loss) for loss in good)
    assert good[-1] < good[0], "and it still learns"
    assert run["result"]["loss"] == good[-1], "the last loss is the last good one"


def test_stopping_names_the_step_and_the_sample(poisoned: dict[str, str], workspace: Path) -> None:
    processes = start_ranks(2, *PROGRAM, {"cases": [case(poisoned, workspace / "stops")]})
    with pytest.raises(AssertionError) as failure:
        join_ranks(processes)
    line = next(line for line in str(failure.value).splitlines() if "BadStep: step" in line)
    assert "loss is nan" in line and "on_bad_step=skip" in line
    worst = line.split("worst losses (index in train/): [")[1].split("]")[0].split(", ")
    assert str(SAMPLE) in worst[:2], "it is in the pack named first"
