"""Killed at any time, started again: the losses and weights of an uninterrupted run, bit for bit."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_ext.megatron.checkpoint_folders import complete_steps, step_folder
from nemo_ext.megatron.record.metrics import read_metrics
from nemo_ext.megatron.weights.torch_dist import TorchDistReader
from tests.nemo_ext.megatron.ranks import Rank, join_ranks, kill_ranks, run_ranks, start_ranks

PROGRAM = ("tests.nemo_ext.megatron.programs", "train_runs")
HELD = ("tests.nemo_ext.megatron.held_ranks", "wait_after_a_step")
STEPS = 12

pytestmark = pytest.mark.timeout(300)  # several launches of real processes; seconds each on a quiet machine


def wait_for_step(output: Path, step: int, processes: list[Rank], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        path = output / "metrics.jsonl"
        if path.is_file() and any(line["step"] >= step for line in read_metrics(path)):
            return
        if any(p.poll() is not None for p in processes):
            join_ranks(processes, timeout_s=5)  # raises with their output
            raise AssertionError(f"the ranks ended before step {step}")
        time.sleep(0.02)
    raise AssertionError(f"no step {step} in {timeout_s} s")


@pytest.fixture(scope="module")
def story(workspace: Path, llama31: Path, data: Path) -> dict[str, Any]:
    """One run that is killed, then asked to stop, then finished; one that nothing happens to; both continued."""

    def case(name: str, **changes: Any) -> dict[str, Any]:
        settings = {"train_iters": STEPS, "global_batch_size": 16, "lr": 1e-3, "save_interval": 4, "pack_length": 256}
        paths = {"hf": str(llama31), "data": str(data), "validation": str(data), "output": str(workspace / name)}
        return {**paths, "settings": {**settings, "dp": 2, "eval_interval": 6, **changes}}

    interrupted = workspace / "interrupted"
    killed = start_ranks(2, *HELD, {"cases": [case("interrupted")], "step": 5, "until": str(workspace / "never")})
    try:
        wait_for_step(interrupted, 5, killed)
    finally:
        kill_ranks(killed, signal.SIGKILL)
    after_kill = complete_steps(interrupted / "checkpoints")
    torn = interrupted / "checkpoints" / "step_0000099.partial"
    torn.mkdir()
    (torn / "__0_0.distcp").write_bytes(b"half")
    with (interrupted / "metrics.jsonl").open("ab") as metrics:
        metrics.write(b'{"step": 7, "lo')

    told = workspace / "told"
    asked = start_ranks(2, *HELD, {"cases": [case("interrupted")], "step": 6, "until": str(told)})
    try:
        wait_for_step(interrupted, 6, asked)
        asked[1].send_signal(signal.SIGTERM)  # one rank is told, all of them stop at the same step
        told.touch()
        preempted = [rank[0]["result"] for rank in join_ranks(asked)]
    finally:
        kill_ranks(asked)

    cases = [case("interrupted"), case("uninterrupted")]
    kept = {"keep_checkpoints": 1, "keep_interval": 8, "save_interval": 2}
    cases += [case("asynchronous", async_save=True, overlap_communication=True, **kept)]
    cases += [case("interrupted", train_iters=STEPS + 3)]
    finished = run_ranks(2, *PROGRAM, {"cases": cases})[0]
    return {"after_kill": after_kill, "torn": torn, "preempted": preempted, "finished": finished}


def losses(run: dict[str, Any]) -> list[float]:
    return [line["loss"] for line in run["lines"] if "loss" in line]


def assert_equal(first: Path, second: Path) -> None:
    """Every tensor of two checkpoints, weights and optimizer, bit for bit."""
    ours, theirs = TorchDistReader(first), TorchDistReader(second)
    assert ours.tensors.keys() == theirs.tensors.keys()
    for key in ours.tensors:
        assert torch.equal(ours.read(key), theirs.read(key)), key


def test_a_killed_run_left_whole_checkpoints(story: dict[str, Any]) -> None:
    assert story["after_kill"] == [4], "it was killed after its first checkpoint"
    assert not story["torn"].exists(), "a half-written one is removed at the next start"


def test_a_signal_to_one_rank_saves_and_stops_all(story: dict[str, Any]) -> None:
    first, second = story["preempted"]
    assert first == second
    assert first["preempted"]
    assert first["step"] == 7


def test_resumed_losses_are_the_uninterrupted_ones_bit_for_bit(story: dict[str, Any]) -> None:
    interrupted, uninterrupted = story["finished"][:2]
    assert len(losses(uninterrupted)) == STEPS
    assert losses(interrupted) == losses(uninterrupted)
    for run in (interrupted, uninterrupted):
        steps = [line["step"] for line in run["lines"] if "loss" in line]
        assert steps == list(range(1, STEPS + 1)), "no step twice, none missing"
    ours, theirs = ([x for x in run["lines"] if "validation_loss" in x] for run in (interrupted, uninterrupted))
    assert ours == theirs


def test_bests_and_counts_survive(story: dict[str, Any]) -> None:
    ours, theirs = ({k: v for k, v in run["result"].items() if k != "checkpoint"} for run in story["finished"][:2])
    assert ours == theirs
    assert ours["best_step"] is not None


def test_resumed_weights_are_the_uninterrupted_ones_bit_for_bit(story: dict[str, Any], workspace: Path) -> None:
    assert_equal(*(step_folder(workspace / name / "checkpoints", STEPS) for name in ("interrupted", "uninterrupted")))


def test_checkpoints_written_in_the_background_under_overlapped_communication_hold_the_same_bits(
    story: dict[str, Any], workspace: Path
) -> None:
    ours, theirs = story["finished"][2], story["finished"][1]
    assert losses(ours) == losses(theirs)
    assert_equal(*(step_folder(workspace / name / "checkpoints", STEPS) for name in ("asynchronous", "uninterrupted")))
    # Taken while training went on: what step 8 held must not have moved on with it.
    assert_equal(*(step_folder(workspace / name / "checkpoints", 8) for name in ("asynchronous", "uninterrupted")))


def test_newest_checkpoints_and_those_to_average_are_kept(story: dict[str, Any], workspace: Path) -> None:
    assert complete_steps(workspace / "asynchronous" / "checkpoints") == [8, 12], "saved every 2, kept 1 and every 8th"


def test_the_tracker_names_the_newest(story: dict[str, Any], workspace: Path) -> None:
    checkpoints = workspace / "interrupted" / "checkpoints"
    assert json.loads((checkpoints / "latest.json").read_text()) == {"step": STEPS + 3}
    assert complete_steps(checkpoints)[-1] == STEPS + 3
