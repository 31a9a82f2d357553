"""The whole pipeline at a size smaller still than tiny: real server, real Megatron at TP=2, real evaluation."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = [
    "+recipe=openmathinstruct2", "+scale=tiny",
    "source.math={path: toy, num_rows: 12, contaminated: 3}", "source.gsm8k={path: toy, num_rows: 12, contaminated: 3}",
    "sizes.seed_solutions_math=2", "sizes.seed_solutions_gsm8k=2", "sizes.new_problems_math=1",
    "sizes.new_problems_gsm8k=1", "sizes.new_solutions=2", "sizes.train_iters=12", "sizes.global_batch_size=4",
    "sizes.num_checkpoints=2", "sizes.answer_tokens=48", "benchmarks=[toy_math]",
    "server.replicas=1", "student_server.replicas=1",
]  # fmt: skip
DATA_STAGES = "only=[prepare_problems,prepare_benchmarks,solve_seeds,grade_seeds,write_problems,collect_problems,solve_new,vote,decontaminate,filter,deduplicate,downsample]"


def data_hash(run: Path) -> str:
    done = json.loads((run / "downsample" / "_DONE").read_text())
    return done["outputs"][0]["sha256"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_whole_pipeline_then_rerun_does_nothing(finish: Callable[..., str], tmp_path: Path):
    finish(*SMALL, timeout=380)
    run = tmp_path / "openmathinstruct2_tiny"
    page = (run / "report.html").read_text()
    for shown in ("checkpoint_6", "average", "tiny_teacher", "tiny_base"):
        assert shown in page
    for manifest in run.glob("*/manifest.json"):
        facts = json.loads(manifest.read_text())
        if facts["rows_in"] is not None:
            assert facts["rows_in"] == facts["rows_out"] + sum(facts["dropped"].values()), manifest
    audit = json.loads((run / "decontaminate" / "manifest.json").read_text())["figures"]
    assert audit["injected"] == 6
    before = {path: path.stat().st_mtime_ns for path in run.rglob("_DONE")}
    output = finish(*SMALL, timeout=60)
    assert output.count(" done ") == len(list(run.glob("*/config.yaml"))) + 2  # evaluate and solve_new lie in folders
    assert {path: path.stat().st_mtime_ns for path in run.rglob("_DONE")} == before


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_at_random_moments_and_rerun_gives_the_same_data(
    launch: Callable[..., subprocess.Popen[str]], finish: Callable[..., str], tmp_path: Path
):
    """SIGKILL to the launcher in the middle of three different stages; the data set is the same."""
    finish(*SMALL, DATA_STAGES, "run_name=whole", timeout=200)
    rng = random.Random(7)
    run = tmp_path / "killed"
    for stage in ("solve_seeds", "write_problems", "solve_new"):
        process = launch(*SMALL, DATA_STAGES, "run_name=killed")
        wait_for_stage(run / stage, process)
        time.sleep(rng.uniform(0.0, 2.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    finish(*SMALL, DATA_STAGES, "run_name=killed", timeout=200)
    assert data_hash(run) == data_hash(tmp_path / "whole")


def wait_for_stage(folder: Path, process: subprocess.Popen[str]) -> None:
    """Until the stage's main process has begun."""
    deadline = time.monotonic() + 120
    while not list(folder.glob("**/main.log")) and process.poll() is None:
        assert time.monotonic() < deadline, f"{folder} never began"
        time.sleep(0.05)
