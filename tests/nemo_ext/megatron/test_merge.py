"""Merged models are mergekit's, to rounding, whatever the blocks; methods are as their papers say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from nemo_ext.megatron.merging import merge as merging
from nemo_ext.megatron.merging.magnitudes import smallest_kept
from nemo_ext.megatron.merging.method import Place, check_models, load
from nemo_ext.megatron.merging.sources import FolderSource
from nemo_ext.megatron.merging.spherical import slerp
from nemo_ext.megatron.weights import blocks
from tests.nemo_ext.megatron.tiny import save_llama

KINDS: dict[str, dict[str, Any]] = {
    "linear": {"kind": "linear"},
    "sum": {"kind": "linear", "normalize": False},
    "slerp": {"kind": "slerp", "t": 0.3},
    "task arithmetic": {"kind": "task_arithmetic", "scale": 0.7},
    "ties": {"kind": "ties", "density": 0.3, "scale": 0.8},
    "ties, added up": {"kind": "ties", "density": 0.3, "normalize": False},
    "dare": {"kind": "dare", "density": 0.4, "rescale": False},
    "dare ties": {"kind": "dare", "density": 0.4, "rescale": False, "elect_signs": True, "normalize": True},
    "warp": {"kind": "warp", "toward_init": 0.25},
}
WEIGHTS = [1.0, 0.5, 0.25]


@pytest.fixture(scope="module")
def folders(workspace: Path) -> list[Path]:
    """A base, and three models that were trained from it, say."""
    found = [workspace / f"merged_{name}" for name in ("base", "a", "b", "c")]
    base = save_llama(found[0]).state_dict()
    for number, folder in enumerate(found[1:]):
        save_llama(folder)
        generator = torch.Generator().manual_seed(number)
        noise = {name: torch.randn(value.shape, generator=generator) * 0.02 for name, value in base.items()}
        save_file(
            {name: value + noise[name] for name, value in base.items()}, folder / "model.safetensors", {"format": "pt"}
        )
    return found


def merged(folders: list[Path], out: Path, mapping: dict[str, Any], dtype: str = "fp32") -> dict[str, torch.Tensor]:
    method = load(mapping)
    models = [FolderSource(folder) for folder in folders[1 : 3 if mapping["kind"] == "slerp" else 4]]
    base = FolderSource(folders[0]) if method.of_differences else None
    weights = WEIGHTS[: len(models)] if method.takes_weights else [1.0] * len(models)
    merging.merge_to_hf(models, base, weights, method, folders[0], out, dtype, {"dtype": dtype})
    return load_file(out / "model.safetensors")


def mergekits(
    folders: list[Path], out: Path, method: str, models: list[dict[str, Any]], **parameters: Any
) -> dict[str, torch.Tensor]:
    mergekit = pytest.importorskip("mergekit.merge", reason="mergekit, which this is compared with, is not installed")
    from mergekit.config import MergeConfiguration
    from mergekit.options import MergeOptions

    config: dict[str, Any] = {"merge_method": method, "dtype": "float32", "models": models, "parameters": parameters}
    if method != "linear":
        config["base_model"] = str(folders[0])
    options = MergeOptions(copy_tokenizer=False, cuda=False, quiet=True)
    mergekit.run_merge(MergeConfiguration.model_validate(config), str(out), options=options)
    return {name: value for file in out.glob("*.safetensors") for name, value in load_file(file).items()}


def masked(folders: list[Path], mapping: dict[str, Any], out: Path) -> list[Path]:
    """The models with what DARE drops of their differences taken away."""
    method, base, found = load(mapping), load_file(folders[0] / "model.safetensors"), [folders[0]]
    for number, folder in enumerate(folders[1:]):
        save_llama(out / str(number))
        tensors = load_file(folder / "model.safetensors")
        kept = {n: method.mask(number, Place(n, 0), v.shape) for n, v in tensors.items()}  # type: ignore[attr-defined]
        mixed = {n: torch.where(kept[n], v, base[n]) for n, v in tensors.items()}
        save_file(mixed, out / str(number) / "model.safetensors", {"format": "pt"})
        found.append(out / str(number))
    return found


@pytest.mark.parametrize("name", [name for name in KINDS if name != "warp"])
def test_merged_models_are_mergekits(folders: list[Path], tmp_path: Path, name: str) -> None:
    ours, mapping = merged(folders, tmp_path / "ours", KINDS[name]), KINDS[name]
    places = masked(folders, mapping, tmp_path) if mapping["kind"] == "dare" else folders
    models = [
        {"model": str(folder), "parameters": {"weight": weight}}
        for folder, weight in zip(places[1:], WEIGHTS, strict=True)
    ]
    if name in ("linear", "sum"):
        theirs = mergekits(places, tmp_path / "theirs", "linear", models, normalize=mapping.get("normalize", True))
    elif name == "slerp":
        theirs = mergekits(
            places[1:], tmp_path / "theirs", "slerp", [{"model": str(places[1])}, {"model": str(places[2])}], t=0.3
        )
    else:
        if "density" in mapping and mapping["kind"] == "ties":
            models = [each | {"parameters": each["parameters"] | {"density": mapping["density"]}} for each in models]
        kind = "ties" if mapping["kind"] == "ties" or mapping.get("elect_signs") else "task_arithmetic"
        normalize = mapping.get("normalize", mapping["kind"] == "ties")
        theirs = mergekits(
            places, tmp_path / "theirs", kind, models, **{"lambda": mapping.get("scale", 1.0), "normalize": normalize}
        )
    assert ours.keys() == theirs.keys()
    for tensor, values in theirs.items():
        assert torch.allclose(ours[tensor], values, rtol=1e-5, atol=2e-7), tensor


@pytest.mark.parametrize("name", KINDS)
def test_blocks_do_not_show(folders: list[Path], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = merged(folders, tmp_path / "whole", KINDS[name])
    monkeypatch.setattr(blocks, "BLOCK", 100)
    pieces = merged(folders, tmp_path / "pieces", KINDS[name])
    assert all(torch.allclose(whole[tensor], pieces[tensor], rtol=0, atol=1e-7) for tensor in whole)
    exact = {"slerp", "warp"}  # whose products are added up in another order
    assert name in exact or all(torch.equal(whole[tensor], pieces[tensor]) for tensor in whole)


def test_of_one_model_everything_gives_it_back(folders: list[Path], tmp_path: Path) -> None:
    model = load_file(folders[1] / "model.safetensors")
    for name, mapping in KINDS.items():
        if mapping["kind"] in ("slerp", "dare"):
            continue
        given = mapping | {"density": 1.0} if mapping["kind"] == "ties" else mapping
        given = given | {key: value for key, value in (("scale", 1.0), ("toward_init", 0.0)) if key in mapping}
        method = load(given)
        base = FolderSource(folders[0]) if method.of_differences else None
        merging.merge_to_hf([FolderSource(folders[1])], base, [1.0], method, folders[0], tmp_path / "out", "fp32", {})
        found = load_file(tmp_path / "out" / "model.safetensors")
        assert all(torch.allclose(found[tensor], model[tensor], atol=1e-7) for tensor in model), name


@given(st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=40), st.floats(0.01, 1))
def test_the_smallest_that_is_kept(values: list[float], density: float) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    (least,) = smallest_kept(lambda: iter([[part] for part in tensor.split(7)]), density)
    expected = sorted((abs(each) for each in tensor.tolist()), reverse=True)[max(1, int(density * len(values))) - 1]
    assert np.float32(least) == np.float32(expected)


def test_spherical_interpolation_keeps_the_length() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    for t in (0.0, 0.3, 0.5, 1.0):
        found = slerp(vectors @ vectors.T, *torch.eye(2, dtype=torch.float64), t) @ vectors
        assert float(found.norm()) == pytest.approx(1)
        assert float(found[1]) == pytest.approx(np.sin(t * np.pi / 2))
    alike = torch.ones(2, 2, dtype=torch.float64)
    assert slerp(alike, *torch.eye(2, dtype=torch.float64), 0.3).tolist() == pytest.approx([0.7, 0.3])


def test_dare_keeps_its_share_and_makes_up_for_the_rest() -> None:
    method, place = load({"kind": "dare", "density": 0.3, "seed": 4}), Place("t", 0)
    ones = torch.ones(400, 250)
    found = method.combine([ones.clone()], [1.0], None, place)
    assert float(found.mean()) == pytest.approx(1, abs=0.02)
    assert sorted(found.unique().tolist()) == pytest.approx([0, 1 / 0.3])
    again = method.combine([ones[100:].clone()], [1.0], None, Place("t", 100))
    assert torch.equal(again, found[100:]), "rows know their place"
    other = load({"kind": "dare", "density": 0.3, "seed": 5}).combine([ones.clone()], [1.0], None, place)
    assert not torch.equal(other, found)


def test_folders_of_another_shape_are_refused_by_what_differs(folders: list[Path], tmp_path: Path) -> None:
    save_llama(tmp_path / "wider", intermediate_size=64)
    sources = [FolderSource(folders[1]), FolderSource(tmp_path / "wider")]
    with pytest.raises(ValueError, match=r"differ in ffn_size \(ffn_size: 48 and 64\)"):
        merging.merge_to_hf(sources, None, [1, 1], load({"kind": "linear"}), folders[0], tmp_path / "out", "bf16", {})


@pytest.mark.parametrize(
    ("mapping", "models", "message"),
    [
        ({"kind": "average"}, 2, "method.kind='average': unknown"),
        ({"kind": "slerp"}, 3, "takes 2 models, and models has 3"),
        ({"kind": "slerp", "t": 1.5}, 2, r"t=1.5 must be in \[0, 1\]"),
        ({"kind": "ties", "density": 0}, 2, "density=0.0 must be above 0"),
        ({"kind": "dare", "density": 2}, 2, "density=2.0 must be above 0"),
        ({"kind": "warp", "toward_init": -1}, 2, r"toward_init=-1.0 must be in \[0, 1\]"),
        ({"kind": "linear"}, 0, "models is empty"),
        ({"kind": "linear", "weights": [1]}, 2, "method.weights: unknown"),
    ],
)
def test_settings_that_make_no_sense(mapping: dict[str, Any], models: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_models(load(mapping), [None] * models)
    with pytest.raises(ValueError, match="gives the models no weights"):
        check_models(load({"kind": "slerp"}), [0.5, None])


def test_bf16_models_are_merged_in_fp32(folders: list[Path], tmp_path: Path) -> None:
    rounded = []
    for folder in folders[1:3]:
        save_llama(tmp_path / folder.name)
        tensors = {n: v.bfloat16() for n, v in load_file(folder / "model.safetensors").items()}
        save_file(tensors, tmp_path / folder.name / "model.safetensors", {"format": "pt"})
        rounded.append(tensors)
    sources = [FolderSource(tmp_path / folder.name) for folder in folders[1:3]]
    merging.merge_to_hf(
        sources, None, [1, 1], load({"kind": "linear"}), folders[0], tmp_path / "out", "bf16", {"x": 1}
    )
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name, value in found.items():
        assert torch.equal(value, ((rounded[0][name].float() + rounded[1][name].float()) / 2).bfloat16())
    assert json.loads((tmp_path / "out" / "merge.json").read_text()) == {"x": 1}
