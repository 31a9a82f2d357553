"""A `server:` mapping becomes the typed Config of the file its kind names, or one clear line."""

import subprocess
import sys

import pytest

from nemo_ext.serving import server
from nemo_ext.serving.servers import embedded, external, trtllm, vllm
from tests.nemo_ext.serving.conftest import ROOT


def test_kinds_are_the_files() -> None:
    assert {"embedded", "external", "trtllm", "vllm"} <= set(server.kinds())


@pytest.mark.parametrize("module", [embedded, external, trtllm, vllm])
def test_every_kind_loads_and_names_itself(module: object) -> None:
    name = module.__name__.rpartition(".")[2]  # type: ignore[attr-defined]
    extra = {"model": "m", "urls": ["http://h:1"]} if name == "external" else {}
    loaded = server.load({"kind": name, "replicas": 2, **extra})
    assert type(loaded) is module.Config  # type: ignore[attr-defined]
    assert (loaded.kind, loaded.replicas, loaded.startup_timeout_s) == (name, 2, 600.0)


def test_values_are_typed() -> None:
    loaded = server.load({"kind": "embedded", "max_batch_size": "16", "compute_dtype": "float32"})
    assert isinstance(loaded, embedded.Config)
    assert (loaded.max_batch_size, loaded.compute_dtype) == (16, "float32")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"kind": "triton"}, r"server\.kind='triton': unknown; it may be one of \['embedded', 'external'"),
        ({"kind": "../x"}, "unknown"),
        ({}, r"server\.kind='None'"),
        ({"kind": "trtllm", "tp": 8}, r"server\.tp: unknown for kind='trtllm'; it may be one of .*'tp_size'"),
        ({"kind": "trtllm", "tp_size": "many"}, r"server\.tp_size: .*many"),
        ({"kind": "trtllm", "tp_size": 8, "nodes": 3}, r"server\.nodes=3; it must divide tp_size \* pp_size = 8"),
        ({"kind": "embedded", "compute_dtype": "int8"}, r"server\.compute_dtype='int8'; it may be one of"),
        ({"kind": "external", "urls": ["http://h:1"]}, r"server\.model"),
    ],
)
def test_mistakes(mapping: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        server.load(mapping)
    assert "\n" not in str(raised.value)


def test_the_login_node_imports_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from nemo_ext.serving import address, client_config, server\n"
        "for kind in server.kinds(): server.module_of(kind)\n"
        "heavy = {'torch', 'aiohttp', 'tokenizers', 'uvicorn', 'numpy', 'transformers'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
