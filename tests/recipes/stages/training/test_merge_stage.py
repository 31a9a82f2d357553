"""The merge stage on the shipped models: what it writes, and what it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recipes import run_stage
from tests.conftest import ROOT
from tests.recipes.conftest import write_config

SHIPPED = ROOT / "nemo_ext" / "serving" / "embedded" / "models"
TEACHER, BASE, CODER = (SHIPPED / f"tiny_{name}" for name in ("teacher", "base", "coder"))
MODEL = {"name": "tiny_teacher", "hf_path": str(TEACHER), "context_length": 1024}


@pytest.fixture
def merge(tmp_path: Path):
    """Its output folder."""

    def start(models: list[Any], **keys: Any) -> Path:
        named = [each if isinstance(each, dict) else {"path": str(each)} for each in models]
        path = write_config(tmp_path / "out", "merge", {"models": named, "model": MODEL} | keys)
        module, config = run_stage.load(path)
        module.check(config)
        run_stage.run(path)
        return tmp_path / "out" / "merged"

    return start


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The teacher with other weights."""
    folder = shutil.copytree(TEACHER, tmp_path / "other")
    tensors = {name: value * 1.5 for name, value in load_file(TEACHER / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_weighted_mean_with_its_record(merge, other: Path, tmp_path: Path) -> None:
    out = merge([{"path": str(TEACHER), "weight": 3}, other], dtype="fp32")
    first = load_file(TEACHER / "model.safetensors")
    for name, value in load_file(out / "model.safetensors").items():
        assert torch.allclose(value, first[name].float() * (3 + 1.5) / 4, rtol=1e-2)
    record = json.loads((out / "merge.json").read_text())
    assert record["method"] == {"kind": "linear", "normalize": True} and record["dtype"] == "fp32"
    assert [(each["path"], each["weight"]) for each in record["models"]] == [(str(TEACHER), 3), (str(other), 1)]
    assert (out / "chat_template.jinja").read_text() == (TEACHER / "chat_template.jinja").read_text()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {Path(each["path"]).name for each in manifest["inputs"]} == {"model.safetensors", "config.json"}
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(out)


@pytest.mark.parametrize(
    ("models", "keys", "message"),
    [
        ([TEACHER, BASE], {}, "differ in end of text, chat template"),
        ([TEACHER, CODER], {}, "differ in vocabulary"),
        ([BASE, BASE], {}, "the merged model would get"),
        ([TEACHER, TEACHER], {"method": {"kind": "ties"}}, "needs base.path"),
        ([TEACHER, TEACHER], {"base": {"path": str(BASE)}}, "takes no base"),
        ([{"path": str(TEACHER), "step": 5}], {}, "a Hugging Face folder has none"),
        ([TEACHER, TEACHER], {"dtype": "int8"}, "dtype='int8'"),
        ([TEACHER], {"method": {"kind": "ties"}, "base": {"path": str(CODER)}}, "differ in vocabulary"),
    ],
)
def test_what_is_refused(merge, models: list[Any], keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        merge(models, **keys)


def test_a_pretrained_base_may_have_no_template(merge) -> None:
    out = merge([TEACHER], method={"kind": "task_arithmetic", "scale": 0.5}, base={"path": str(BASE)}, dtype="fp32")
    base, tuned = (load_file(folder / "model.safetensors") for folder in (BASE, TEACHER))
    for name, value in load_file(out / "model.safetensors").items():
        assert torch.allclose(value, (base[name].float() + tuned[name].float()) / 2, atol=1e-6)
