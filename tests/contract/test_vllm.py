"""vLLM's real server, in its build for CPUs, started by the launcher with the command line that a GPU gets."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.conftest import ROOT
from tests.contract.wheels import missing, unpacked

WHY = missing("vllm")
pytestmark = [pytest.mark.soak, pytest.mark.timeout(1500), pytest.mark.skipif(bool(WHY), reason=WHY)]
ON_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def test_it_generates_through_the_launcher(tmp_path: Path) -> None:
    problems = [f"Ann has {number} apples and buys 3 more. How many apples does she have?" for number in range(2, 26)]
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b"".join(orjson.dumps({"problem": problem}) + b"\n" for problem in problems))
    path = tmp_path / "bin"  # vllm alone: the environment's python stays out
    path.mkdir()
    (path / "vllm").symlink_to(unpacked("vllm") / "bin" / "vllm")
    argv = [
        sys.executable, "launchers/run.py", "+recipe=generate", "server=vllm_1gpu", "model@teacher=tiny_teacher",
        "+cluster.gpus=1", "cluster.gpu=h100", "server.max_num_tokens=65536", f"input={rows}",
        "sampling.temperature=0.8", "sampling.max_tokens=256", "num_samples=8", "samples_per_request=2",
        f"run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    env = {**os.environ, **ON_CPU, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1400)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    stage = tmp_path / "run" / "generate"
    completions = [orjson.loads(line) for line in (stage / "completions.jsonl").read_bytes().splitlines()]
    assert len({each["key"] for each in completions}) == len(completions) == len(problems) * 8
    assert all(each["error"] is None and each["num_generated_tokens"] > 0 for each in completions)
    assert (stage / "_DONE").is_file()
