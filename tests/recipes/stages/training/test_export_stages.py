"""From a training run's checkpoints to Hugging Face folders."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from nemo_ext.megatron.checkpoint_files import write_record
from nemo_ext.megatron.checkpoint_folders import step_folder
from nemo_ext.models.model_files import folder_fingerprint
from nemo_ext.models.shape import ModelShape
from nemo_ext.records import manifest
from nemo_ext.records.progress import read_heartbeat
from recipes import run_stage
from tests.nemo_ext.megatron.checkpoints import cheap_values, write_model
from tests.recipes.conftest import write_config

STEPS = (10, 20, 100)


@pytest.fixture
def checkpoints(model: dict[str, Any], tmp_path: Path) -> str:
    """A training stage's folder with checkpoints after 10, 20 and 100 steps."""
    shape = ModelShape.from_hf(Path(model["hf_path"]))
    for step in STEPS:
        write_model(
            step_folder(tmp_path / "train" / "checkpoints", step), shape, torch.bfloat16, True, cheap_values(step)
        )
    return str(tmp_path / "train")


def ran(folder: Path, uses: str, **keys: Any) -> dict[str, Any]:
    run_stage.run(write_config(folder, uses, keys))
    return manifest.read(folder)


def test_an_average_is_a_model(checkpoints: str, model: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "average"
    keys = {"checkpoints": checkpoints, "model": {**model, "chat_template": "llama3.jinja"}, "dtype": "fp32"}
    made = ran(out, "average", steps=[100, 10], **keys)
    assert made["figures"] == {"checkpoints": 2, "precision": "main parameters in float32"}
    assert made["models"] == {"average": folder_fingerprint(out / "average")}
    assert [Path(entry["path"]).parent.name for entry in made["inputs"]] == ["step_0000010", "step_0000100"]
    AutoModelForCausalLM.from_pretrained(out / "average")
    assert AutoTokenizer.from_pretrained(out / "average").chat_template
    name = "model.norm.weight"
    values = [cheap_values(step)("decoder.final_layernorm.weight", 0, 32) for step in (10, 100)]
    assert torch.equal(load_file(out / "average" / "model.safetensors")[name], (values[0] + values[1]) / 2)
    beat = read_heartbeat(out)
    assert beat is not None
    assert beat["unit"] == "MB"
    assert beat["done"] == beat["total"]
    assert manifest.out_of_date(out, made["config_hash"]) is None


def test_every_checkpoint_is_exported_in_step_order(checkpoints: str, model: dict[str, Any], tmp_path: Path) -> None:
    made = ran(tmp_path / "export", "export_hf", checkpoints=checkpoints, model=model, dtype="fp32")
    assert list(made["models"]) == ["checkpoint_1", "checkpoint_2", "checkpoint_3"]
    for number, step in enumerate(STEPS, start=1):
        tensors = load_file(tmp_path / "export" / f"checkpoint_{number}" / "model.safetensors")
        expected = cheap_values(step)("decoder.final_layernorm.weight", 0, 32)
        assert torch.equal(tensors["model.norm.weight"], expected)
    beat = read_heartbeat(tmp_path / "export")
    assert beat is not None
    assert beat["done"] == beat["total"]


@pytest.mark.parametrize(("stage", "keys"), [("average", {"steps": [10, 100]}), ("export_hf", {})])
def test_another_chat_template_than_was_trained_is_refused(
    checkpoints: str, model: dict[str, Any], tmp_path: Path, stage: str, keys: dict[str, Any]
) -> None:
    """The exported model would be asked in a form that it never saw, and told to stop at a token that it never learned."""
    write_record(Path(checkpoints) / "checkpoints" / "step_0000100", {"chat_template": "5ab0e1"})
    config = write_config(tmp_path / stage, stage, {"checkpoints": checkpoints, "model": model, **keys})
    with pytest.raises(ValueError, match="step_0000100 was trained with the chat template 5ab0e1"):
        run_stage.run(config)


def test_steps_that_are_not_there_are_refused(checkpoints: str, model: dict[str, Any], tmp_path: Path) -> None:
    for steps in ([10, 1], [1000], [10, 10], []):
        config = write_config(
            tmp_path / "average", "average", {"checkpoints": checkpoints, "model": model, "steps": steps}
        )
        with pytest.raises(ValueError, match=r"give distinct steps out of the complete \[10, 20, 100\]"):
            run_stage.run(config)
