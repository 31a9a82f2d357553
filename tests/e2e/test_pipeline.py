"""The whole pipeline at a size smaller still than tiny: real server, real Megatron at TP=2, real evaluation."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.small_pipeline import SMALL, data_hash

DATA_STAGES = "only=[prepare_problems,prepare_benchmarks,solve_seeds,grade_seeds,write_problems,collect_problems,solve_new,vote,decontaminate,filter,deduplicate,downsample]"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whole_pipeline_then_rerun_does_nothing(whole_run: Path, finish: Callable[..., str]):
    run = whole_run
    page = (run / "report.html").read_text()
    for shown in ("checkpoint_6", "average", "tiny_teacher", "tiny_base"):
        assert shown in page
    for manifest in run.glob("*/manifest.json"):
        facts = json.loads(manifest.read_text())
        if facts["rows_in"] is not None:
            assert facts["rows_in"] == facts["rows_out"] + sum(facts["dropped"].values()), manifest
    audit = json.loads((run / "decontaminate" / "manifest.json").read_text())["figures"]
    assert audit["injected"] == 6
    for name in ("export/checkpoint_1", "average/average"):
        for file in ("config.json", "generation_config.json"):  # the base's own say [1] alone: it would never stop
            assert json.loads((run / name / file).read_text())["eos_token_id"] == [4, 1]
    before = {path: path.stat().st_mtime_ns for path in run.rglob("_DONE")}
    output = finish(*SMALL, f"run_dir={run}", timeout=300)
    assert output.count(" done ") == len(list(run.glob("*/config.yaml"))) + 2  # evaluate and solve_new lie in folders
    assert {path: path.stat().st_mtime_ns for path in run.rglob("_DONE")} == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_random_moments_and_rerun_gives_the_same_data(
    whole_run: Path, launch: Callable[..., subprocess.Popen[str]], finish: Callable[..., str], tmp_path: Path
):
    """SIGKILL to the launcher in the middle of three different stages; the data set is the same."""
    rng = random.Random(7)
    run = tmp_path / "killed"
    for stage in ("solve_seeds", "write_problems", "solve_new"):
        process = launch(*SMALL, DATA_STAGES, "run_name=killed")
        wait_for_stage(run / stage, process)
        time.sleep(rng.uniform(0.0, 2.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    finish(*SMALL, DATA_STAGES, "run_name=killed", timeout=500)
    assert data_hash(run) == data_hash(whole_run)


def wait_for_stage(folder: Path, process: subprocess.Popen[str]) -> None:
    """Until the stage's main process has begun."""
    deadline = time.monotonic() + 120
    while not list(folder.glob("**/main.log")) and process.poll() is None:
        assert time.monotonic() < deadline, f"{folder} never began"
        time.sleep(0.05)
