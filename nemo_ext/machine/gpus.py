"""Kinds of GPU: memory, peak arithmetic, and the share of the peak that a plan counts on. Light imports only."""

import subprocess
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One kind. TFLOP/s are dense tensor-core peaks (without 2:4 sparsity, which doubles the number on data sheets)."""

    name: str
    memory_gib: float
    """What one process can allocate: the "total capacity" of PyTorch's out-of-memory messages on such GPUs. The data
    sheet's GB less what the driver and error correction keep."""
    bf16_tflops: float
    fp8_tflops: float | None
    """None: the kind has no FP8."""
    nvlink_gb_per_s: float
    """Bandwidth to the other GPUs of its node, each way."""
    network_gb_per_s: float
    """Bandwidth to other nodes, each way: its share of the network cards of NVIDIA's own DGX or NVL72 node."""
    mfu: float
    """Model FLOPs utilisation, of the BF16 peak, that plans assume for bf16 training on full packs and without
    pipeline bubbles. Assumed, not measured here."""
    fp8_mfu: float | None = None
    """The same in fp8, of the FP8 peak."""


_HOPPER: dict[str, float] = {"bf16_tflops": 989, "fp8_tflops": 1979, "mfu": 0.40, "fp8_mfu": 0.30}
_BLACKWELL: dict[str, float] = {"mfu": 0.30, "fp8_mfu": 0.22}

# Peaks and links: NVIDIA's data sheets of A100, H100, H200, DGX A100 and H100, HGX B200 and GB200 NVL72; Megatron-LM's
# gpu_peak_flops.py has the same BF16 peaks but GB200's, 2250. Memory: out-of-memory messages quoted in public logs.
#
# MFU. Hopper, bf16: Megatron-LM's README has 41 % (2B) to 48 % (462B) of 989 TFLOP/s on H100: 0.40 is below all of them.
# Hopper, fp8: Megatron-Bridge's archive has 710 (70B fine-tuning) to 827 (405B) TFLOP/s of 1979, 36 to 42 %: 0.30.
# Ampere, bf16: Korthikanti et al. 2022, table 5, has 42 % (22B) to 56 % (1T) of 312 TFLOP/s: 0.40.
# Blackwell: no published bf16 Llama run was at hand: Hopper's less a quarter.
GPUS = (
    Gpu(
        name="a100_40gb", memory_gib=39.4, bf16_tflops=312, fp8_tflops=None, nvlink_gb_per_s=300, network_gb_per_s=25,
        mfu=0.40,
    ),
    Gpu(
        name="a100", memory_gib=79.1, bf16_tflops=312, fp8_tflops=None, nvlink_gb_per_s=300, network_gb_per_s=25,
        mfu=0.40,
    ),
    Gpu(
        name="h100_pcie", memory_gib=79.1, bf16_tflops=756, fp8_tflops=1513, nvlink_gb_per_s=64, network_gb_per_s=50,
        mfu=0.40, fp8_mfu=0.30,
    ),
    Gpu(name="h100", memory_gib=79.1, nvlink_gb_per_s=450, network_gb_per_s=50, **_HOPPER),
    Gpu(name="h200", memory_gib=139.8, nvlink_gb_per_s=450, network_gb_per_s=50, **_HOPPER),
    Gpu(
        name="b200", memory_gib=178.3, bf16_tflops=2250, fp8_tflops=4500, nvlink_gb_per_s=900, network_gb_per_s=50,
        **_BLACKWELL,
    ),
    Gpu(
        name="gb200", memory_gib=184.3, bf16_tflops=2500, fp8_tflops=5000, nvlink_gb_per_s=900, network_gb_per_s=50,
        **_BLACKWELL,
    ),
)  # fmt: skip


def gpu_named(name: str) -> Gpu:
    """The kind of that name, as `cluster.gpu` gives it.

    Raises:
        ValueError: no such kind; names those there are.
    """
    for gpu in GPUS:
        if gpu.name == name:
            return gpu
    raise ValueError(f"cluster.gpu={name!r}: it may be null or one of {', '.join(gpu.name for gpu in GPUS)}")


def find_gpu(device_name: str) -> Gpu | None:
    """The kind that a CUDA device name ("NVIDIA H100 80GB HBM3") says; None when it is not known."""
    words = device_name.upper().replace("-", " ").split()
    for chip in ("GB200", "B200", "H200", "H100", "A100"):
        if chip in words:
            if chip == "H100" and "PCIE" in words:
                return gpu_named("h100_pcie")
            if chip == "A100" and "40GB" in words:
                return gpu_named("a100_40gb")
            # of less memory or arithmetic than the SXM part: nothing is known rather than too much
            return None if "NVL" in words else gpu_named(chip.lower())
    return None


def list_devices() -> list[str]:
    """Device names of this machine's GPUs, as `nvidia-smi -L` prints them; empty without a working nvidia-smi."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    # "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-...)"
    lines = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    return [line.partition(": ")[2].partition(" (UUID")[0] for line in lines]
