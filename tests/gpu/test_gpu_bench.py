"""The GPU bench, run here on the CPU with a tiny model, so that it does run where there is a GPU."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.models.published_shapes import SHAPES
from nemo_ext.models.shape import ModelShape
from tests.gpu.bench_train import SETTINGS, fitting_layers, show, write_data
from tests.nemo_ext.megatron.ranks import ROOT, join_ranks, start_ranks
from tests.nemo_ext.megatron.tiny import save_llama


def test_it_measures(tmp_path: Path) -> None:
    save_llama(tmp_path / "model")
    write_data(tmp_path / "data", vocab_size=250, longest=128)
    small = {"train_iters": 7, "packs_per_step": 2, "seq_length": 128, "pack_length": 512, "precision": "fp32"}
    shape = asdict(ModelShape.from_hf(tmp_path / "model"))
    argument = {"folder": str(tmp_path), "shape": shape, "settings": SETTINGS | small}
    # an interpreter of its own: a fork server would outlive this test, and this half of the suite looks at what is left
    figures = join_ranks(start_ranks(1, "tests.gpu.bench_train", "measure", argument, fresh=True))[0]
    assert figures["tokens_per_second"] > 0 and figures["tflops"] > 0
    assert " 2 " in show({"name": "tiny", "layers": 2, **figures}, peak=1.0)


def test_it_starts_with_what_the_estimate_says_fits() -> None:
    settings = TrainSettings(**SETTINGS)
    h200, small = (fitting_layers(SHAPES["Llama-3.1-8B"], settings, gib) for gib in (139.8, 1.0))
    assert 16 <= h200[0] < 32 and h200 == sorted(h200, reverse=True)
    assert small == [2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.bench_train"], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert (done.returncode, done.stderr) == (2, "error: no CUDA device; this measures one GPU\n")
