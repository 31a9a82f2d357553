"""Families of models: the same logits as transformers', and weights that come back bit for bit at any TP x PP."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nemo_ext.megatron.weights.export import export_hf
from nemo_ext.megatron.weights.hf import RandomSource
from nemo_ext.models.shape import ModelShape
from tests.nemo_ext.megatron.families import FAMILIES, check, checkpoint, save_family
from tests.nemo_ext.megatron.ranks import run_ranks

pytestmark = pytest.mark.timeout(300)  # one launch of four processes; seconds on a quiet machine

# Four processes each; with dp the replicas hold what fewer processes would.
TOPOLOGIES: list[dict[str, int]] = [
    {"tp": 2, "dp": 2},
    {"tp": 2, "pp": 2},
    {"pp": 4},
]
IN_BF16 = TOPOLOGIES[1:2]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """{"logits": [[topology, family, difference], ...], "fp32": folders, "bf16": folders, "out": checkpoints}"""
    root = tmp_path_factory.mktemp("families")
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16}
    folders = {p: [save_family(root / p / name, name, dtype) for name in FAMILIES] for p, dtype in dtypes.items()}
    argument = {p: [str(folder) for folder in paths] for p, paths in folders.items()}
    argument |= {"cases": TOPOLOGIES, "bf16_cases": IN_BF16, "out": str(root / "out")}
    results = run_ranks(4, check.__module__, check.__name__, argument)
    return {"logits": [line for result in results for line in result["logits"]], "out": root / "out", **folders}


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=str)
def test_logits_are_those_of_transformers(ran: dict[str, Any], topology: dict[str, int]) -> None:
    found: dict[str, list[float]] = {}
    for case, name, difference in ran["logits"]:
        if case == topology:
            found.setdefault(name, []).append(difference)
    assert found.keys() == FAMILIES.keys()
    for name, differences in found.items():
        assert max(differences) < 1e-4, name


@pytest.mark.parametrize(
    ("topology", "precision"),
    [*((each, "fp32") for each in TOPOLOGIES), *((each, "bf16") for each in IN_BF16)],
    ids=str,
)
def test_weights_come_back_bit_for_bit(
    ran: dict[str, Any], tmp_path: Path, topology: dict[str, int], precision: str
) -> None:
    for folder in ran[precision]:
        out = export_hf(checkpoint(ran["out"], topology, folder), folder, tmp_path / folder.name, precision)
        assert (out / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes(), folder.name


def test_fresh_weights_are_those_of_the_family(ran: dict[str, Any]) -> None:
    for folder in ran["fp32"]:
        source = RandomSource(ModelShape.from_hf(folder), seed=3)
        stored = load_file(folder / "model.safetensors")
        assert {name: tuple(tensor.shape) for name, tensor in stored.items()} == source.sizes
        for name in stored:
            tensor = source.read(name)
            if name.endswith(".bias"):
                assert not tensor.any()
            elif "norm" in name:
                assert tensor.eq(1).all()
            else:
                assert 0 < float(tensor.std()) < 0.2
