"""A `server:` mapping becomes the typed Config of the file its kind names, or one clear line."""

import subprocess
import sys

import pytest

from nemo_ext.models.model import Model
from nemo_ext.serving import server
from nemo_ext.serving.servers import embedded, external, sglang, trtllm, vllm
from tests.nemo_ext.serving.conftest import ROOT


def test_kinds_are_the_files() -> None:
    assert {"embedded", "external", "sglang", "trtllm", "vllm"} == set(server.kinds())


@pytest.mark.parametrize("module", [embedded, external, sglang, trtllm, vllm])
def test_every_kind_loads_and_names_itself(module: object) -> None:
    name = module.__name__.rpartition(".")[2]  # type: ignore[attr-defined]
    extra = {"model": "m", "urls": ["http://h:1"]} if name == "external" else {}
    loaded = server.load({"kind": name, "concurrency": 7, **extra})
    assert type(loaded) is module.Config  # type: ignore[attr-defined]
    assert (loaded.kind, loaded.replicas, loaded.concurrency) == (name, 1, 7)
    assert loaded.startup_timeout_s == (1800 if isinstance(loaded, server.GpuServer) else 600)


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
        ({"kind": "trtllm", "tp_size": 0}, r"server\.tp_size=0; it must be at least 1"),
        ({"kind": "trtllm", "kv_cache_dtype": "int4"}, r"server\.kv_cache_dtype='int4'; it may be one of"),
        ({"kind": "trtllm", "kv_cache_free_gpu_memory_fraction": 90}, "fraction=90.0; it must be between 0 and 1"),
        ({"kind": "trtllm", "mpi": "pmix --hold"}, r"server\.mpi='pmix --hold'; it must be a name"),
        ({"kind": "vllm", "tp_size": 16, "nodes": 2}, r"server\.nodes=2: vllm is started on one node here"),
        ({"kind": "vllm", "gpu_memory_utilization": 1.5}, "must be between 0 and 1"),
        ({"kind": "sglang", "mem_fraction_static": 0}, "must be between 0 and 1"),
        ({"kind": "embedded", "concurrency": 0}, r"server\.concurrency=0; it must be at least 1"),
        ({"kind": "external", "urls": ["http://h:1"], "replicas": 2}, r"give several server\.urls instead"),
        ({"kind": "external", "urls": "http://h:1"}, r"server\.urls"),
    ],
)
def test_mistakes(mapping: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        server.load(mapping)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["sk-proj-abc", "hf_aBcDeF", "https://x?key=1", ""])
def test_a_pasted_key_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="the NAME of an environment variable") as raised:
        server.load({"kind": "external", "urls": ["http://h:1"], "api_key_env": key})
    assert not key or key not in str(raised.value)


def test_a_sequence_is_no_longer_than_the_model_takes() -> None:
    model = Model(name="m", hf_path="/m", context_length=4096)
    assert trtllm.Config().sequence_length(model) == 4096
    assert trtllm.Config(max_seq_len=2048).sequence_length(model) == 2048
    with pytest.raises(ValueError, match=r"server\.max_seq_len=8192; m takes up to model\.context_length=4096"):
        trtllm.Config(max_seq_len=8192).sequence_length(model)


def test_a_model_goes_by_its_name_and_its_folder() -> None:
    model = Model(name="teacher", hf_path="/models/Llama/", context_length=8)
    assert server.accepted_ids(model) == ["teacher", "Llama", "/models/Llama"]


def test_the_login_node_imports_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from nemo_ext.serving import address, server\n"
        "from nemo_ext.serving.client import config\n"
        "for kind in server.kinds(): server.module_of(kind)\n"
        "heavy = {'torch', 'aiohttp', 'tokenizers', 'uvicorn', 'numpy', 'transformers'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
