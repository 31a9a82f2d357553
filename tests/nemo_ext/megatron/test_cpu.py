"""The CUDA stand-ins, in a process of their own: they change torch for good."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

CHECK = """
import torch
from nemo_ext.megatron.runtime import cpu
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


KERNELS = """
import sys
sys.path.insert(0, sys.argv[1])
from nemo_ext.megatron.runtime import cpu
cpu.enable()
import torch
from megatron.core import optimizer
from nemo_ext.megatron.layers.kernels import has
assert optimizer.Adam is torch.optim.AdamW, optimizer.Adam
assert not (optimizer.distrib_optimizer.USING_TE_OPTIMIZER or optimizer.distrib_optimizer.USING_APEX_OPTIMIZER)
assert not has("transformer_engine") and not has("apex")
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="nothing is patched on a machine with CUDA")
def test_cpu_ranks_take_no_gpu_kernels_where_they_are_installed(tmp_path: Path) -> None:
    """The NeMo image has both; their Adam would be given CPU tensors."""
    for package, adam in (("transformer_engine/pytorch/optimizers", "FusedAdam"), ("apex/optimizers", "FusedAdam")):
        folder = tmp_path / package
        folder.mkdir(parents=True)
        for parent in (folder, *folder.relative_to(tmp_path).parents):
            (tmp_path / parent / "__init__.py").touch()
        names = ("multi_tensor_applier", "multi_tensor_l2norm", "multi_tensor_scale")
        (folder / "__init__.py").write_text(f"class {adam}: pass\n" + "".join(f"{name} = None\n" for name in names))
    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", KERNELS, str(tmp_path)], check=True, cwd=root)


@pytest.mark.skipif(torch.cuda.is_available(), reason="nothing is patched on a machine with CUDA")
def test_cuda_calls_land_on_the_cpu() -> None:
    subprocess.run([sys.executable, "-c", CHECK], check=True, cwd=Path(__file__).resolve().parents[3])


def test_no_test_has_patched_this_process() -> None:
    """What is patched leaves transformers' models with buffers that nobody filled: wrong numbers in tests of other folders."""
    from nemo_ext.megatron.runtime import cpu

    assert not cpu._enabled, (
        "a test imports nemo_ext.megatron.build or .train here: run it by tests/nemo_ext/megatron/ranks.py"
    )
