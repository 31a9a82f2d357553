"""The scripts of large runs, which no two nodes can run: slurmctld says of each whether it would take it.

The test cluster has 78 nodes of eight H100 for this, in name only.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.launchers.golden_scripts import SCRIPTS

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.timeout(300)]
NODES = {
    "sft_8b_pyxis": 8,
    "sft_70b_pyxis": 32,
    "generate_405b_fp8_pyxis": 1,
    "generate_405b_bf16_pyxis": 2,
    "sft_8b_bare": 8,
    "evaluate_bare": 1,
    "sft_8b_enroot": 8,
    "generate_405b_fp8_enroot": 1,
}


def asked(text: str) -> str:
    argv = ["sbatch", "--test-only", "--partition=gpu,gpu_long"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)
    return done.stderr


def test_slurm_takes_every_script_and_not_what_is_too_large(cluster: Path) -> None:
    maths = ["reservationname=maths", "starttime=now", "duration=infinite", "users=root", "nodes=node[65-80]"]
    subprocess.run(["scontrol", "create", "reservation", *maths], timeout=60, check=True, capture_output=True)
    assert NODES.keys() == {script.name for script in SCRIPTS}
    texts = {script.name: script.text() for script in SCRIPTS}
    for name, nodes in NODES.items():
        said = asked(texts[name])
        found = re.search(r"to start at .* on nodes (\S+)", said)
        assert found, f"{name}: {said}"
        listed = subprocess.run(
            ["scontrol", "show", "hostnames", found[1]], capture_output=True, text=True, check=True
        )
        assert len(listed.stdout.split()) == nodes, name
    large = texts["sft_70b_pyxis"]
    for old, new in (("--nodes=32", "--nodes=65"), ("per-node=8\n#SBATCH --time", "per-node=9\n#SBATCH --time")):
        assert old in large and "not available" in asked(large.replace(old, new)), new
    assert "not available" in asked(texts["sft_8b_bare"].replace("h100:8", "h200:8"))
