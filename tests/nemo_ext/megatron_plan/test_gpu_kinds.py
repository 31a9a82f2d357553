"""Which GPU a device name means."""

import os
import stat
from pathlib import Path

import pytest

from nemo_ext.machine.gpus import GPUS, find_gpu, gpu_named, list_devices


@pytest.mark.parametrize(
    ("device", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("NVIDIA H100 NVL", None),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100_40gb"),
        ("NVIDIA A100-PCIE-40GB", "a100_40gb"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA GeForce RTX 4090", None),
        ("", None),
    ],
)
def test_find_gpu(device: str, kind: str | None) -> None:
    found = find_gpu(device)
    assert (found.name if found else None) == kind


def test_an_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"cluster\.gpu='h1000'.*a100, .*h100, "):
        gpu_named("h1000")


def test_kinds_are_plausible() -> None:
    assert len({gpu.name for gpu in GPUS}) == len(GPUS)
    for gpu in GPUS:
        assert 39 < gpu.memory_gib < 200 and 0.2 <= gpu.mfu <= 0.5
        assert (gpu.fp8_tflops is None) == (gpu.fp8_mfu is None)
        # fp8 doubles the peak, and must not be planned slower than bf16
        if gpu.fp8_tflops and gpu.fp8_mfu:
            assert gpu.fp8_tflops == pytest.approx(2 * gpu.bf16_tflops, rel=0.01)
            assert gpu.fp8_tflops * gpu.fp8_mfu > gpu.bf16_tflops * gpu.mfu


def fake_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_devices_are_what_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = r"printf 'GPU 0: NVIDIA H200 (UUID: GPU-1)\nGPU 1: NVIDIA H200 (UUID: GPU-2)\n'"
    fake_nvidia_smi(tmp_path, monkeypatch, lines)
    assert list_devices() == ["NVIDIA H200"] * 2


def test_a_broken_driver_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, monkeypatch, "echo NVIDIA-SMI has failed; exit 9")
    assert list_devices() == []
