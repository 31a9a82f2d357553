"""Averaging three checkpoints straight to Hugging Face safetensors, against `cp` of the checkpoints in the same run.

Both read from the page cache, where the checkpoints have just been written, and both end with their files synced.
`cp` reads and writes all of them; averaging reads the fp32 main parameters and writes one model in bf16.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nemo_ext.models.shape import ModelShape
from tests.nemo_ext.megatron.checkpoints import cheap_values, save_shape, write_model

ROOT = Path(__file__).resolve().parent.parent.parent
ROUNDS, CHECKPOINTS = 3, 3
SHAPE = ModelShape(
    num_layers=3, hidden_size=2048, ffn_size=8192, num_heads=16, num_kv_heads=4, head_dim=128, vocab_size=8000,
    max_positions=64, rope_theta=1e4, rope_scaling=None, norm_eps=1e-6, tied_embeddings=False,
)  # fmt: skip
CHILD = """
import json, re, sys, time
from pathlib import Path
from nemo_ext.megatron.weights.average import average_to_hf
*folders, hf, out = map(Path, sys.argv[1:])
started = time.perf_counter()
average_to_hf(folders, hf, out, "bf16")
seconds = time.perf_counter() - started
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(json.dumps({"seconds": seconds, "peak_mb": int(peak) / 1024}))
"""


def average(folders: list[Path], hf: Path, out: Path) -> dict[str, float]:
    arguments = [sys.executable, "-c", CHILD, *map(str, [*folders, hf, out])]
    result: dict[str, float] = json.loads(subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True).stdout)
    shutil.rmtree(out)
    return result


def copy(folders: list[Path], out: Path) -> float:
    """Seconds."""
    out.mkdir()
    started = time.perf_counter()
    subprocess.run(["cp", "-r", *map(str, folders), str(out)], check=True)
    for path in out.rglob("*.distcp"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as root:
        hf = save_shape(Path(root, "hf"), SHAPE)
        folders = [
            write_model(Path(root, f"step_{i:07d}"), SHAPE, torch.bfloat16, True, cheap_values(i))
            for i in range(1, CHECKPOINTS + 1)
        ]
        stored = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
        read = CHECKPOINTS * SHAPE.num_parameters * 4
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(average(folders, hf, Path(root, "average")))
            theirs.append(copy(folders, Path(root, "copy")))
    rate = read / statistics.median(one["seconds"] for one in ours) / 1e9
    peer = stored / statistics.median(theirs) / 1e9
    yield {
        "name": "average_rate",
        "value": round(rate, 2),
        "unit": "GB/s of checkpoints",
        "target": round(peer / 2, 2),
        "peer": round(peer, 2),
        "ratio": round(rate / peer, 2),
    }
    yield {
        "name": "average_peak_memory",
        "value": round(max(one["peak_mb"] for one in ours)),
        "unit": "MB, imports included",
        "target": 2000,
        "peer": None,
        "ratio": None,
    }
