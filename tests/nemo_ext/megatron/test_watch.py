"""What a person sees of a training, and where else the numbers go."""

import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nemo_ext.machine.gpus import find_gpu
from nemo_ext.megatron.record.metrics import read_metrics
from nemo_ext.megatron.record.stragglers import slowest
from nemo_ext.megatron.record.trackers import TensorBoard, open_trackers
from nemo_ext.megatron.record.training_log import Interval, Watch, duration
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.models.shape import ModelShape
from tests.nemo_ext.megatron.tiny import save_llama

LINE = {"step": 3, "loss": 0.5, "grad_norm": 1.0, "lr": 1e-5, "num_tokens": 1000, "seconds": 0.5}


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    save_llama(tmp_path / "model")
    here: Any = SimpleNamespace(device=torch.device("cpu"), world_size=4)
    return Watch(TrainSettings(train_iters=13), ModelShape.from_hf(tmp_path / "model"), here, tmp_path, step=0)


def test_the_line_for_people(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    interval = Interval()
    for loss in (0.5, 1.5):
        interval.add(LINE | {"loss": loss}, num_padded_tokens=1250, sum_of_squares=10**6)
    with caplog.at_level(logging.INFO):
        watch.interval(3, 1e-5, interval, slowest([1.0, 1.0, 1.5, 1.1], ["a", "b", "c", "d"]))
    line, warning = (record.getMessage() for record in caplog.records if record.name.startswith("nemo_ext.megatron"))
    for said in ("step 3/13", "loss 1.0000", "lr 1.00e-05", "2,000 tok/s (2,500 with padding)", "0.50 s/step"):
        assert said in line
    assert "ETA 00:00:05" in line, "10 steps of half a second"
    assert warning == "rank 2 on c takes 1.50 times as long as the median rank"


def test_known_gpus_get_an_mfu(watch: Watch) -> None:
    watch.gpu = find_gpu("NVIDIA H100 80GB HBM3")
    assert watch.gpu is not None
    assert watch._speed(watch.gpu.bf16_tflops / 2).endswith("MFU 50.0 %")


def test_every_number_reaches_the_trackers(watch: Watch, tmp_path: Path) -> None:
    watch.step(LINE | {"skipped": "loss is nan"})
    watch.close()
    assert [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0.5]
    assert scalars(tmp_path / "tensorboard", "train/loss") == {3: 0.5}


def test_an_objectives_figures_reach_the_log_and_the_trackers(
    watch: Watch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    interval = Interval()
    for margin in (0.5, 1.5):
        line = LINE | {"figures": {"reward_margin": margin}}
        interval.add(line, num_padded_tokens=1250, sum_of_squares=10**6)
    interval.add(LINE, num_padded_tokens=1250, sum_of_squares=10**6)  # a step in which nothing was counted of it
    watch.step(line)
    watch.step({"step": 3, "validation_loss": 0.5, "figures": {"reward_margin": 0.7}})
    with caplog.at_level(logging.INFO):
        watch.interval(3, 1e-5, Interval(**interval.state_dict()), slowest([1.0], ["a"]))
    watch.close()
    assert "loss 0.5000 | reward margin 1.0000 | grad norm" in caplog.text
    assert [x.get("figures") for x in read_metrics(tmp_path / "metrics.jsonl")][:2] == [
        {"reward_margin": 1.5},
        {"reward_margin": 0.7},
    ]
    assert scalars(tmp_path / "tensorboard", "train/reward_margin") == {3: 1.5}
    assert scalars(tmp_path / "tensorboard", "train/validation_reward_margin") == pytest.approx({3: 0.7})


def test_tensorboard_forgets_what_a_killed_process_logged_too_far(tmp_path: Path) -> None:
    for start, value in ((0, 1.0), (2, 2.0)):
        writer = TensorBoard(tmp_path, start)
        for step in range(start + 1, 5):
            writer.write(step, {"loss": value})
        writer.close()
    assert scalars(tmp_path, "train/loss") == {1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0}


def scalars(folder: Path, name: str) -> dict[int, float]:
    events = EventAccumulator(str(folder), purge_orphaned_data=True)
    events.Reload()
    return {event.step: event.value for event in events.Scalars(name)}


def test_weights_and_biases_resumes_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is not installed here; this stands for the three calls that are made of it."""
    calls: list[Any] = []
    run = SimpleNamespace(log=lambda values, step: calls.append((step, values)), finish=lambda: calls.append("finish"))
    module = SimpleNamespace(init=lambda **options: calls.append(options) or run, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "wandb", module)
    for step in (0, 5):
        (tracker,) = open_trackers(TrainSettings(tensorboard=False, wandb_project="sft"), tmp_path, step)
        tracker.write(step + 1, {"loss": 0.5})
        tracker.close()
    first, second = calls[0], calls[3]
    assert first["id"] == second["id"] and first["resume"] == "allow" and first["project"] == "sft"
    assert first["config"]["lr"] == TrainSettings().lr
    assert calls[1:3] == [(1, {"loss": 0.5}), "finish"]


def test_weights_and_biases_must_be_installed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wandb_project=sft: install the wandb package"):
        open_trackers(TrainSettings(tensorboard=False, wandb_project="sft"), tmp_path, 0)


@pytest.mark.parametrize(("seconds", "text"), [(5, "00:00:05"), (3661, "01:01:01"), (360000, "4 d 04:00")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
