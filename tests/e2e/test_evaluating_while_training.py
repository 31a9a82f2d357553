"""A checkpoint is evaluated while the training that wrote it goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.megatron.checkpoint_folders import complete_steps
from tests.launchers.process_stages import wait_until


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_checkpoint_is_scored_before_training_ends(
    launch: Callable[..., Any], finish: Callable[..., str], tmp_path: Path
) -> None:
    """Both are launched at once, so the evaluation has to wait for the step."""
    train = tmp_path / "sft_full_tiny" / "train"
    endless = ["sizes.train_iters=6000", "sizes.num_checkpoints=2000", "sizes.global_batch_size=8"]
    training = launch("+recipe=sft_full", "+scale=tiny", "benchmarks=[toy_math]", *endless)
    settings = ["benchmarks=[toy_math]", f"checkpoints={train}", "step=3", "sizes.answer_tokens=8"]
    finish("+recipe=evaluate_checkpoint", "+scale=tiny", *settings, timeout=380)
    assert training.poll() is None, training.communicate()[0]
    run = tmp_path / "evaluate_step_3_tiny"
    scores = json.loads((run / "evaluate" / "checkpoint_1" / "scores.json").read_text())
    assert scores["benchmarks"]["toy_math"]["total"] > 0
    assert "toy_math" in (run / "report.html").read_text()
    wait_until(lambda: complete_steps(train / "checkpoints")[-1] > 3)
    assert training.poll() is None, "it goes on meanwhile"
