"""GPU servers behind the wrapper answer, say what they are, and end. Not yet run on a GPU.

python -m pytest tests/gpu/test_gpu_serving.py    inside a server's image (containers/images.yaml): needs torch with CUDA,
                                                  transformers, tokenizers, omegaconf, psutil, pytest and pytest-timeout
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from nemo_ext.serving.address import Endpoint, wait_for
from nemo_ext.serving.server import module_of
from tests.conftest import ROOT
from tests.nemo_ext.serving.tiny_checkpoint import make_checkpoint

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(1200)]

HERE = {
    "trtllm": shutil.which("trtllm-serve") is not None,
    "vllm": shutil.which("vllm") is not None,
    "sglang": importlib.util.find_spec("sglang") is not None,
}
KINDS = [
    pytest.param(kind, marks=pytest.mark.skipif(not here, reason=f"no {kind} in this image"))
    for kind, here in HERE.items()
]


LOOK_S = 3.0
"""Between looks at a server's load: TensorRT-LLM answers once two seconds have brought nothing new, so never while busy."""


@dataclass
class Served:
    wrapper: "subprocess.Popen[bytes]"
    endpoint: Endpoint
    folder: Path

    def complete(self, prompt: str, **more: Any) -> dict[str, Any]:
        body = {"model": self.endpoint.model, "prompt": prompt, "max_tokens": 16, "temperature": 0.0, **more}
        request = urllib.request.Request(
            f"{self.endpoint.url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=120) as reply:
            content: dict[str, Any] = json.loads(reply.read())
        return content


@pytest.fixture(params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    # 64 channels a head, 128 a projection and 16 bit: what the kernels take
    sizes = {"hidden_size": 256, "num_heads": 4, "head_dim": 64, "intermediate_size": 512}
    model = make_checkpoint(tmp_path / "tiny", dtype=torch.bfloat16, **sizes)
    server = {"kind": request.param, "max_batch_size": 8, "max_num_tokens": 512, "metrics_interval_s": LOOK_S}
    share = {
        "trtllm": "kv_cache_free_gpu_memory_fraction",
        "vllm": "gpu_memory_utilization",
        "sglang": "mem_fraction_static",
    }
    server[share[request.param]] = 0.3
    about = {"name": "tiny", "hf_path": str(model), "context_length": 512}
    (tmp_path / "config.yaml").write_text(json.dumps({"server": server, "model": about}))
    address = tmp_path / "server-0.json"
    argv = [sys.executable, "-m", "nemo_ext.serving.serve", tmp_path / "config.yaml", "--address-file", address]
    with (tmp_path / "log").open("wb") as log:
        wrapper = subprocess.Popen(argv, cwd=ROOT, env=dict(os.environ), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 900
        while not address.exists():
            assert wrapper.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()[-8000:]
            time.sleep(0.5)
        yield Served(wrapper, wait_for([address], 1)[0], tmp_path)
    finally:
        wrapper.terminate()
        wrapper.wait(60)


def test_it_completes_and_is_what_it_says(served: Served) -> None:
    assert served.endpoint.model == "tiny"
    first, second = served.complete("Ann has 3 apples"), served.complete("Ann has 3 apples")
    assert first["choices"][0]["text"] == second["choices"][0]["text"], "greedy"
    assert first["usage"]["completion_tokens"] <= 16
    address = json.loads((served.folder / "server-0.json").read_text())
    assert address["version"], "it said its version"


def test_its_load_is_read(served: Served) -> None:
    kind = json.loads((served.folder / "server-0.json").read_text())["kind"]
    if not module_of(kind).METRICS:
        pytest.skip(f"{kind} has no metrics that can be asked while it is busy")
    deadline, metrics = time.monotonic() + 120, {}
    while not metrics.get("generated_tokens"):
        assert time.monotonic() < deadline, (served.folder / "log").read_text()[-4000:]
        served.complete("Bo has 7 coins", max_tokens=64, temperature=1.0)
        time.sleep(LOOK_S)
        path = served.folder / "server-0.metrics.json"
        metrics = json.loads(path.read_text()) if path.exists() else {}
    assert metrics["running"] is not None and metrics["waiting"] is not None


def test_it_ends_with_all_its_processes(served: Served) -> None:
    family = psutil.Process(served.wrapper.pid).children(recursive=True)
    assert family
    served.wrapper.send_signal(signal.SIGTERM)
    served.wrapper.wait(60)
    _, left = psutil.wait_procs(family, timeout=30)
    assert not left
