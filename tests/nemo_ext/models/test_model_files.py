"""What a model is known by."""

import json
import shutil
from pathlib import Path

import pytest

from nemo_ext.models.hub_folder import INDEX
from nemo_ext.models.model import Model
from nemo_ext.models.model_files import model_files, model_fingerprint, text_files, weight_files

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    for name in FILES:
        (tmp_path / name).write_bytes(b"{}" + bytes(3 << 20 if name.endswith(".safetensors") else 0))
    return Model(name="tiny", hf_path=str(tmp_path))


def test_a_hub_id_identifies_itself() -> None:
    assert model_fingerprint(Model(hf_path="org/name")) == "org/name"
    assert model_files(Model(hf_path="org/name")) == []


@pytest.mark.parametrize("name", FILES)
def test_one_bit_of_any_file_makes_another_model(model: Model, name: str) -> None:
    path = Path(model.hf_path) / name
    before, content = model_fingerprint(model), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert model_fingerprint(model) != before


def test_files_that_come_or_go_make_another_model(model: Model) -> None:
    folder, seen = Path(model.hf_path), {model_fingerprint(model)}
    for name in ("chat_template.jinja", "special_tokens_map.json", "model-00001-of-00002.safetensors"):
        (folder / name).write_text("x")
        seen.add(model_fingerprint(model))
    (folder / "tokenizer.json").unlink()
    seen.add(model_fingerprint(model))
    assert len(seen) == 5


def test_notes_beside_it_and_its_place_do_not(model: Model, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = model_fingerprint(model)
    for name in ("README.md", "average.json", "provenance.json", ".lock"):
        (Path(model.hf_path) / name).write_text("x")
    assert model_fingerprint(model) == before
    copy = tmp_path_factory.mktemp("copy") / "hf"
    shutil.copytree(model.hf_path, copy)
    assert model_fingerprint(Model(name="another", hf_path=str(copy))) == before


def test_the_template_that_replaces_its_own_belongs_to_it(model: Model) -> None:
    other = Model(name="tiny", hf_path=model.hf_path, chat_template="llama3.jinja")
    assert model_fingerprint(other) != model_fingerprint(model)
    assert text_files(other)[-1].name == "llama3.jinja"


def test_who_reads_what(model: Model) -> None:
    assert [path.name for path in weight_files(Path(model.hf_path))] == ["config.json", "model.safetensors"]
    assert [path.name for path in text_files(model)] == ["config.json", "tokenizer.json", "tokenizer_config.json"]


@pytest.mark.parametrize("name", ["../outside.safetensors", "/elsewhere/outside.safetensors", "sub/x.safetensors"])
def test_weights_outside_the_folder_are_refused(model: Model, name: str) -> None:
    (Path(model.hf_path) / INDEX).write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(ValueError, match="weights must be files of the same folder"):
        model_fingerprint(model)
