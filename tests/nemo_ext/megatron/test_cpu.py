"""The CUDA stand-ins, in a process of their own: they change torch for good."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

CHECK = """
import torch
from nemo_ext.megatron import cpu
cpu.enable()
zeros = torch.zeros
cpu.enable()
assert torch.zeros is zeros, "a second call wraps nothing again"
assert torch.zeros(2, device="cuda").device.type == "cpu"
assert torch.empty(2, device=torch.cuda.current_device()).device.type == "cpu"
tensor = torch.ones(2)
assert tensor.type() == "torch.cuda.FloatTensor" and tensor.cuda() is tensor
assert tensor.type(torch.float64).dtype == torch.float64
state = torch.cuda.get_rng_state()
first = torch.rand(3)
torch.cuda.set_rng_state(state)
assert torch.equal(torch.rand(3), first)
import sys
import megatron.core
assert "torch._inductor.compile_fx" not in sys.modules
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="nothing is patched on a machine with CUDA")
def test_cuda_calls_land_on_the_cpu() -> None:
    subprocess.run([sys.executable, "-c", CHECK], check=True, cwd=Path(__file__).resolve().parents[3])
