"""Transformer Engine's own Python without a GPU: `install()` before anything of megatron.core is imported.

The wheel `transformer_engine` is pure Python; its kernels are in another, compiled for CUDA. Here they are the functions
of kernels.py, fp8.py and attention.py, and the device they ask about is a Hopper GPU. A kernel that has no stand-in says
so when it is called.
"""

import importlib
import os
import sys
from collections import Counter
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from nemo_ext.megatron.runtime import cpu
from tests.contract import attention, fp8, kernels
from tests.contract.wheels import unpacked

CALLS: Counter[str] = Counter()
"""How often each kernel was called."""
HOPPER = SimpleNamespace(major=9, minor=0, multi_processor_count=132, name="stand-in", total_memory=80 * 2**30)
FACTS = {
    "get_cublasLt_version": 130100,
    "get_cudnn_version": 91800,
    "get_num_cublas_streams": 4,
    "get_stream_priority_range": (0, -5),
    "ubuf_built_with_mpi": False,
}


class _AnyMember(type):
    """A class that has every attribute, its own name, in place of an enumeration's member."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class _Kernels(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _AnyMember(name, (), {}) if name[0].isupper() else _absent(name)
        setattr(self, name, value)
        return value


def _absent(name: str) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"transformer_engine_torch.{name} has no stand-in")

    return kernel


def _counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        in_fp8 = name == "generic_gemm" and kernels.is_fp8(args[0])
        CALLS[f"{name} in fp8" if in_fp8 else name] += 1
        return function(*args, **kwargs)

    return kernel


def install() -> None:
    """Make `import transformer_engine` give the unpacked wheel over the stand-ins, and megatron-core run on the CPU."""
    cpu._leave_out_gpu_kernels = lambda: None  # it keeps Transformer Engine away from CPU tensors: what is wanted here
    cpu._leave_out_compiler()
    sys.path.append(str(unpacked("transformer_engine")))
    sys.modules["transformer_engine_torch"] = _stand_ins()
    for name in ("triton", "triton.pad", "triton.permutation", "triton.cross_entropy"):  # no layer of ours uses them
        sys.modules[f"transformer_engine.pytorch.{name}"] = _Kernels(name)
    _answer_as_hopper()
    _load()
    cpu.enable()
    _keep_random_states_on_the_cpu()


def _stand_ins() -> ModuleType:
    module = _Kernels("transformer_engine_torch")
    module.__spec__ = ModuleSpec(module.__name__, None)
    for each in (kernels, fp8, attention):
        for name, value in vars(each).items():
            if name.startswith("_") or getattr(value, "__module__", None) != each.__name__:
                continue
            setattr(module, name, value if isinstance(value, type) else _counted(name, value))
    for name, answer in FACTS.items():
        setattr(module, name, lambda answer=answer: answer)
    return module


def _load() -> None:
    """Import the package with its step that loads the compiled library left out."""
    os.environ["NVTE_PROJECT_BUILDING"] = "1"  # its common part then loads no library either
    spec = PathFinder.find_spec("transformer_engine", [str(unpacked("transformer_engine"))])
    assert spec and spec.loader
    package = module_from_spec(spec)
    sys.modules[spec.name] = package
    common = importlib.import_module("transformer_engine.common")
    common.load_framework_extension = lambda framework: None  # type: ignore[attr-defined]
    spec.loader.exec_module(package)
    extensions = importlib.import_module("transformer_engine.pytorch.cpp_extensions")
    extensions.__getattr__ = sys.modules["transformer_engine_torch"].__getattr__  # type: ignore[method-assign]
    _construct_as_with_cuda(importlib.import_module("transformer_engine.pytorch.module.base"))


def _construct_as_with_cuda(base: ModuleType) -> None:
    """Layers ask for CUDA as they are made, and nowhere else."""
    made = base.TransformerEngineBaseModule.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        before, torch.cuda.is_available = torch.cuda.is_available, lambda: True
        try:
            made(self, *args, **kwargs)
        finally:
            torch.cuda.is_available = before

    base.TransformerEngineBaseModule.__init__ = init


def _answer_as_hopper() -> None:
    torch.cuda.get_device_properties = lambda *args, **kwargs: HOPPER
    torch.cuda.get_device_capability = lambda *args, **kwargs: (HOPPER.major, HOPPER.minor)
    torch.cuda.is_current_stream_capturing = lambda: False
    torch.Tensor.is_cuda = property(lambda tensor: True)  # type: ignore[assignment]
    for name in ("arange", "ones", "full", "zeros_like", "ones_like", "full_like", "rand", "randn", "as_tensor"):
        setattr(torch, name, cpu._on_cpu(getattr(torch, name)))
    torch.Tensor.to = cpu._on_cpu(torch.Tensor.to)  # type: ignore[method-assign]


def _keep_random_states_on_the_cpu() -> None:
    distributed = importlib.import_module("transformer_engine.pytorch.distributed")
    distributed._get_cuda_rng_state = lambda *args, **kwargs: torch.get_rng_state()  # type: ignore[attr-defined]
    distributed._set_cuda_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)  # type: ignore[attr-defined]
