"""SGLang's own parser takes our command lines, and its request classes our bodies, with the values we mean."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from nemo_ext.models.model import Model
from nemo_ext.serving.server import Place, load, module_of
from tests.conftest import ROOT
from tests.contract.sent import bodies
from tests.contract.wheels import missing

WHY = missing("sglang")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.skipif(bool(WHY), reason=WHY)]

IDS = {"model": "m", "prompt": [1, 2, 3], "max_tokens": 1}
COMMANDS = {
    "one": {"conf": "sglang_1gpu"},
    "eight": {"conf": "sglang", "max_seq_len": 8192},
    "nodes": {"conf": "sglang", "nodes": 2, "pp_size": 2, "kv_cache_dtype": "fp8", "enable_prefix_caching": False},
}


def command(template: Path, conf: str, **changes: Any) -> list[str]:
    """What would be started, without the interpreter and the module."""
    given = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "server" / f"{conf}.yaml"))
    assert isinstance(given, dict)
    server = load({**{str(key): value for key, value in given.items()}, **changes})
    model = Model(name="m", hf_path="models/m", context_length=16384, chat_template=str(template))
    meeting = "n1:20001" if changes.get("nodes") else ""
    place = Place(host="0.0.0.0", port=30000, rendezvous=meeting)
    argv: list[str] = module_of("sglang").command(server, model, place)
    assert argv[1:3] == ["-m", "sglang.launch_server"]
    return argv[3:]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    template = tmp_path_factory.mktemp("template") / "chat.jinja"
    template.write_text("{{ messages }}")
    sent = {**bodies(), "ids": ("CompletionRequest", IDS)}
    asked = {
        "commands": [command(template, **each) for each in COMMANDS.values()],
        "bodies": list(sent.values()),
    }
    argv = [sys.executable, "-m", "tests.contract.sglang_reads"]
    done = subprocess.run(argv, input=json.dumps(asked), cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    answer = json.loads(done.stdout.splitlines()[-1])
    return {
        "parsed": dict(zip(COMMANDS, answer["parsed"], strict=True)),
        "requests": dict(zip(sent, answer["requests"], strict=True)),
        "unknown": dict(zip(sent, answer["unknown"], strict=True)),
    }


def test_command_lines_mean_what_we_mean(read: dict[str, dict[str, Any]]) -> None:
    one, eight, nodes = (read["parsed"][name] for name in COMMANDS)
    assert one["model_path"] == "models/m" and one["served_model_name"] == "m" and one["chat_template"]
    assert one["host"] == "0.0.0.0" and one["port"] == 30000 and one["tp_size"] == 1 and one["nnodes"] == 1
    assert one["sampling_defaults"] == "openai" and one["enable_metrics"] is True
    assert one["kv_cache_dtype"] == "auto" and one["disable_radix_cache"] is False
    assert 0 < one["mem_fraction_static"] < 1 and one["max_running_requests"] > 0 and one["chunked_prefill_size"] > 0
    assert one["context_length"] == 16384 and eight["context_length"] == 8192
    assert (
        nodes["pp_size"] == nodes["nnodes"] == 2 and nodes["node_rank"] == 0 and nodes["dist_init_addr"] == "n1:20001"
    )
    assert nodes["kv_cache_dtype"] == "fp8_e4m3" and nodes["disable_radix_cache"] is True


def test_bodies_are_known_and_read(read: dict[str, dict[str, Any]]) -> None:
    assert not any(read["unknown"].values()), "SGLang ignores keys that it does not know"
    for name in ("text", "chat"):
        request = read["requests"][name]
        assert (request["temperature"], request["top_p"], request["top_k"]) == (0.8, 0.95, 50)
        assert (request["stop"], request["seed"], request["n"]) == (["\n", "="], 7, 2)
        assert request["stop_token_ids"] == [128009]
        assert request["max_tokens"] == 24 and request["model"] == "m"
    assert read["requests"]["ids"]["prompt"] == [1, 2, 3], "a rendered prompt may come as token ids"


def test_likelihood_is_asked_for(read: dict[str, dict[str, Any]]) -> None:
    """Its server answers with the prompt's where `echo and logprobs` holds."""
    request = read["requests"]["likelihood"]
    assert request["echo"] and request["logprobs"]
