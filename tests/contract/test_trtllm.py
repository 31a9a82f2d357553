"""TensorRT-LLM takes our flags, our YAML and our bodies: inside its image alone, without a GPU. Not yet run.

python -m pytest tests/contract/test_trtllm.py    in the image `trtllm` (containers/images.yaml)
"""

import importlib
import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from nemo_ext.models.model import Model
from nemo_ext.serving.server import Place, Server, load
from nemo_ext.serving.servers import trtllm
from tests.conftest import ROOT
from tests.contract.sent import bodies

HERE = importlib.util.find_spec("tensorrt_llm") is not None
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not HERE, reason="tensorrt_llm is not here: run this in its image (containers/images.yaml)"),
]
CONFS = sorted(path.stem for path in (ROOT / "conf" / "server").glob("trtllm*.yaml"))


def server(conf: str) -> Server:
    given: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "server" / f"{conf}.yaml"))
    return load(given)


def model(**changes: Any) -> Model:
    folder = ROOT / "nemo_ext" / "serving" / "embedded" / "models" / "tiny_teacher"
    return Model(**{"name": "tiny", "hf_path": str(folder), "context_length": 131072} | changes)


@pytest.mark.parametrize("conf", CONFS)
def test_every_flag_is_listed(conf: str, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    place = Place(host="0.0.0.0", port=8000, options_path=tmp_path / "options.yaml", rendezvous="n1:20001")
    argv = trtllm.command(server(conf), model(chat_template=str(template)), place)
    listed = subprocess.run(
        ["trtllm-serve", "serve", "--help"], capture_output=True, text=True, timeout=300, check=True
    )
    flags = {word.strip(",") for word in listed.stdout.split() if word.startswith("--")}
    assert [word for word in argv if word.startswith("--") and word not in flags] == []


@pytest.mark.parametrize("conf", CONFS)
def test_the_yaml_is_accepted(conf: str) -> None:
    arguments = importlib.import_module("tensorrt_llm.llmapi.llm_args").TorchLlmArgs
    options = trtllm.options(server(conf), model())
    made = arguments(model=model().hf_path, **options)
    assert made.enable_chunked_prefill is options["enable_chunked_prefill"]
    for name, value in options["kv_cache_config"].items():
        assert getattr(made.kv_cache_config, name) == value
    for name, value in options["cuda_graph_config"].items():
        assert getattr(made.cuda_graph_config, name) == value


@pytest.mark.parametrize("name", bodies())
def test_bodies_are_accepted(name: str) -> None:
    """Its classes forbid keys that they do not know."""
    kind, body = bodies()[name]
    request = getattr(importlib.import_module("tensorrt_llm.serve.openai_protocol"), kind)(**body)
    assert request.model == "m" and request.temperature == body["temperature"]
