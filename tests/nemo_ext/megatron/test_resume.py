"""A checkpoint goes on at any other topology, survives a kill while the next one is written, and refuses damage."""

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.megatron.checkpoint_files import unreadable
from nemo_ext.megatron.checkpoint_folders import PARTIAL, complete_steps, expendable, step_folder
from nemo_ext.megatron.weights.mapping import EMBEDDING
from nemo_ext.megatron.weights.torch_dist import TorchDistReader
from tests.nemo_ext.megatron.ranks import join_ranks, kill_ranks, run_ranks, start_ranks
from tests.nemo_ext.megatron.tiny import save_llama

PROGRAM = ("tests.nemo_ext.megatron.programs", "train_runs")
HELD = ("tests.nemo_ext.megatron.held_ranks", "wait_in_a_save")
FIRST, LAST = 2, 5

pytestmark = pytest.mark.timeout(300)  # several launches of real processes; seconds each on a quiet machine

TOPOLOGIES: dict[str, dict[str, Any]] = {
    "tensor x pipeline": {"tp": 2, "pp": 2},
    "sequence x data": {"tp": 2, "sequence_parallel": True, "dp": 2},
    "virtual pipeline x context": {"pp": 2, "vp": 2, "cp": 2},
    "data": {"dp": 4},
}
"""Each saves, and goes on from what the one before it (the last one for the first) saved."""


@pytest.fixture(scope="module")
def deep(workspace: Path) -> Path:
    save_llama(workspace / "resume_deep", num_hidden_layers=4)
    return workspace / "resume_deep"


def case(output: Path, model: Path, data: Path, **changes: Any) -> dict[str, Any]:
    settings = {
        "global_batch_size": 32,
        "lr": 1e-3,
        "save_interval": LAST,
        "pack_length": 128,
        "clip_grad": 0.5,
        **changes,
    }
    return {"hf": str(model), "data": str(data), "output": str(output), "settings": settings}


@pytest.fixture(scope="module")
def relay(workspace: Path, deep: Path, data: Path) -> dict[str, list[float]]:
    """{name: losses of steps 3 to 5}, each saved at another topology than it goes on at, and of one that never stopped."""
    names = list(TOPOLOGIES)
    cases = [case(workspace / "relay" / "none", deep, data, train_iters=LAST, **TOPOLOGIES[names[0]])]
    for saver, reader in zip(names[-1:] + names[:-1], names, strict=True):
        output = workspace / "relay" / reader
        cases.append(case(output, deep, data, train_iters=FIRST, **TOPOLOGIES[saver]))
        cases.append(case(output, deep, data, train_iters=LAST, **TOPOLOGIES[reader]))
    results = run_ranks(4, *PROGRAM, {"cases": cases})[0]
    runs = dict(zip(["none", *names], [results[0], *results[2::2]], strict=True))
    return {name: [x["loss"] for x in run["lines"] if "loss" in x][FIRST:] for name, run in runs.items()}


@pytest.mark.parametrize("name", list(TOPOLOGIES))
def test_a_changed_topology_goes_on_with_the_same_losses(relay: dict[str, list[float]], name: str) -> None:
    assert len(relay[name]) == LAST - FIRST
    assert relay[name] == pytest.approx(relay["none"], rel=1e-5)


def test_weights_are_stored_in_the_pieces_of_their_topology(relay: dict[str, list[float]], workspace: Path) -> None:
    assert relay, "the runs have ended"
    folders = {name: workspace / "relay" / name / "checkpoints" for name in TOPOLOGIES}
    pieces = {n: len(TorchDistReader(step_folder(f, LAST)).tensors[EMBEDDING].chunks) for n, f in folders.items()}
    assert pieces["tensor x pipeline"] == 2
    assert pieces["data"] == 1


def test_a_kill_during_a_save_leaves_the_one_before(workspace: Path, deep: Path, data: Path) -> None:
    output = workspace / "killed_in_save"
    settings = {"train_iters": 9, "save_interval": 1, "keep_checkpoints": 2, "dp": 2}
    processes = start_ranks(2, *HELD, {"cases": [case(output, deep, data, **settings)], "save": 3})
    checkpoints, deadline = output / "checkpoints", time.monotonic() + 120
    torn = checkpoints / f"{step_folder(checkpoints, 3).name}{PARTIAL}"
    try:
        while not (torn.is_dir() and any(torn.iterdir())):
            assert time.monotonic() < deadline and all(p.poll() is None for p in processes), "it never wrote"
            time.sleep(0.02)
    finally:
        kill_ranks(processes, signal.SIGKILL)
    assert complete_steps(checkpoints) == [1, 2] and torn.is_dir()
    again = case(output, deep, data, train_iters=4, dp=2)
    lines = run_ranks(2, *PROGRAM, {"cases": [again]})[0][0]["lines"]
    assert [x["step"] for x in lines if "loss" in x] == [1, 2, 3, 4], "went on after the last whole one"
    assert not list(checkpoints.glob(f"*{PARTIAL}"))


@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
def test_a_damaged_checkpoint_is_refused_by_name(
    workspace: Path, deep: Path, data: Path, damage: str, tmp_path: Path
) -> None:
    run_ranks(1, *PROGRAM, {"cases": [case(tmp_path, deep, data, train_iters=1)]})
    shard = next(step_folder(tmp_path / "checkpoints", 1).glob("*.distcp"))
    if damage == "missing":
        shard.unlink()
    elif damage == "flipped":  # one bit of a weight, which loads without a word
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    else:
        shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    processes = start_ranks(1, *PROGRAM, {"cases": [case(tmp_path, deep, data, train_iters=2)]})
    with pytest.raises(AssertionError, match="step_0000001.*set it aside"):
        join_ranks(processes)


@pytest.mark.parametrize(("changed", "named"), [("data", "training set"), ("hf", "start model")])
def test_a_checkpoint_of_something_else_is_refused(
    workspace: Path, deep: Path, data: Path, tmp_path: Path, changed: str, named: str
) -> None:
    """Going on would certify the old weights as trained on the new rows, or from the new model."""
    places = {"data": tmp_path / "data", "hf": tmp_path / "hf"}
    shutil.copytree(data, places["data"])
    shutil.copytree(deep, places["hf"])
    one, two = (case(tmp_path / "out", places["hf"], places["data"], train_iters=n) for n in (1, 2))
    run_ranks(1, *PROGRAM, {"cases": [one]})
    place = places[changed] / ("loss_mask.bin" if changed == "data" else "model.safetensors")
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.write_bytes(content)
    processes = start_ranks(1, *PROGRAM, {"cases": [two]})
    with pytest.raises(
        AssertionError, match=rf"step_0000001 was trained on another {named} \(\w+, now \w+\).*redo=true"
    ):
        join_ranks(processes)
    content[-1] ^= 1
    place.write_bytes(content)
    (again,) = run_ranks(1, *PROGRAM, {"cases": [two]})[0]
    assert [line["step"] for line in again["lines"] if "loss" in line] == [1, 2], "put back, it goes on"


def test_another_optimizer_is_refused(deep: Path, data: Path, tmp_path: Path) -> None:
    first, second = (case(tmp_path, deep, data, train_iters=n, use_distributed_optimizer=n == 1) for n in (1, 2))
    processes = start_ranks(1, *PROGRAM, {"cases": [first, second]})
    with pytest.raises(AssertionError, match="go on with use_distributed_optimizer=True"):
        join_ranks(processes)


def test_other_layers_are_named_and_not_called_damage(tmp_path: Path) -> None:
    """What megatron-core says when Transformer Engine's layers look for their state in a checkpoint of local ones."""
    missing = RuntimeError("Missing key in checkpoint state_dict: decoder.final_layernorm._extra_state")
    said = unreadable(tmp_path, missing)
    assert "saved with other layers" in said and "layers=local" in said and "damaged" not in said
    assert "damaged or missing" in unreadable(tmp_path, EOFError("Ran out of input"))


def test_another_number_of_processes_is_refused(deep: Path, data: Path, tmp_path: Path) -> None:
    processes = start_ranks(1, *PROGRAM, {"cases": [case(tmp_path, deep, data, train_iters=1, dp=2)]})
    with pytest.raises(AssertionError, match="WORLD_SIZE=1.*need 2 processes"):
        join_ranks(processes)


@pytest.mark.parametrize(
    ("keep", "interval", "gone"),
    [
        (None, None, []),
        (2, None, [1000, 2000, 10000]),
        (1, 10000, [1000, 2000, 12000]),
        (1, 1000, []),
        (9, None, []),
    ],
)
def test_keep_policy(keep: int | None, interval: int | None, gone: list[int]) -> None:
    assert expendable([1000, 2000, 10000, 12000, 13000], keep, interval) == gone
