"""The merge recipe on its own, as a person starts it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.conftest import ROOT

Finish = Callable[..., str]
MODELS = ROOT / "nemo_ext" / "serving" / "embedded" / "models"


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_merge_a_model_with_its_base(finish: Finish, tmp_path: Path) -> None:
    models = f"models=[{{path: {MODELS / 'tiny_teacher'}, weight: 0.5}}, {{path: {MODELS / 'tiny_teacher'}}}]"
    words = ["model@student=tiny_teacher", "stages.merge.method.kind=task_arithmetic", "stages.merge.dtype=fp32"]
    finish("+recipe=merge", models, *words, f"stages.merge.base.path={MODELS / 'tiny_base'}")
    folder = tmp_path / "merge" / "merge" / "merged"
    record = json.loads((folder / "merge.json").read_text())
    assert [each["weight"] for each in record["models"]] == [0.5, 1.0] and record["base"]["path"].endswith("tiny_base")
    merged, teacher, base = (
        load_file(each / "model.safetensors") for each in (folder, MODELS / "tiny_teacher", MODELS / "tiny_base")
    )
    for name, value in merged.items():
        expected = base[name].float() + 1.5 * (teacher[name].float() - base[name].float())
        assert (value - expected).abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_models_that_read_text_differently_are_refused(finish: Finish) -> None:
    models = f"models=[{{path: {MODELS / 'tiny_teacher'}}}, {{path: {MODELS / 'tiny_coder'}}}]"
    said = finish("+recipe=merge", models, "model@student=tiny_teacher", code=1)
    assert "differ in vocabulary" in " ".join(said.split())
