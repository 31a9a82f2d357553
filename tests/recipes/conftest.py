"""Stages run in this process, on folders of rows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from nemo_ext.models.model import Model
from nemo_ext.records import manifest
from nemo_ext.records.files import write_text_atomic
from recipes import run_stage
from tests.nemo_ext.serving.conftest import shared_server, tiny_checkpoint  # noqa: F401 - fixtures
from tests.nemo_ext.serving.fake_server import FakeServer, fake  # noqa: F401 - a fixture
from tests.tiny_tokenizer import make_tokenizer

Rows = list[dict[str, Any]]


def lines(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


class Ran:
    """What a stage left behind, with its manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output, self.dropped = lines(folder / "output.jsonl"), lines(folder / "dropped.jsonl")
        self.manifest = manifest.read(folder)
        self.reasons = [row["reason"] for row in self.dropped]


def write_config(folder: Path, uses: str, keys: dict[str, Any]) -> Path:
    content = {"uses": uses, "name": folder.name, "output_dir": str(folder), **keys}
    write_text_atomic(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(content)))
    return folder / "config.yaml"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ran]:
    """run(uses, key=value, ...) as a task's main process does, checks included; errors come through."""

    def start(uses: str, folder: str = "out", **keys: Any) -> Ran:
        path = write_config(tmp_path / folder, uses, keys)
        module, config = run_stage.load(path)
        if hasattr(module, "check"):
            module.check(config)
        run_stage.run(path)
        return Ran(tmp_path / folder)

    return start


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., str]:
    """rows([...]) writes them as an earlier stage's output and gives its folder."""
    made = 0

    def write(data: Rows) -> str:
        nonlocal made
        made += 1
        folder = tmp_path / f"in{made}"
        write_text_atomic(folder / "output.jsonl", "".join(json.dumps(row) + "\n" for row in data))
        return str(folder)

    return write


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    made: Model = make_tokenizer(tmp_path_factory.mktemp("tiny"))
    return {"name": made.name, "hf_path": made.hf_path, "context_length": made.context_length}


def external(server: FakeServer) -> dict[str, Any]:
    return {"kind": "external", "urls": [server.endpoint.url], "model": "fake", "concurrency": 2}
