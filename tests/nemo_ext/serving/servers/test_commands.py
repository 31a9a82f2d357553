"""What the plug-ins would start, word for word."""

from pathlib import Path

import pytest

from nemo_ext.model import Model
from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.servers import external, trtllm, vllm

TEACHER = Model(name="teacher", hf_path="/models/Llama-3.1-405B-Instruct-FP8", context_length=8192)


def test_trtllm_fp8_on_one_node() -> None:
    cfg = trtllm.Config(tp_size=8, kv_cache_dtype="fp8")
    assert trtllm.command(cfg, TEACHER, "0.0.0.0", 8000, Path("/run/server-0.options.yaml")) == [
        "trtllm-serve",
        "/models/Llama-3.1-405B-Instruct-FP8",
        "--backend",
        "pytorch",
        "--host",
        "0.0.0.0",
        "--port",
        "8000",
        "--tp_size",
        "8",
        "--pp_size",
        "1",
        "--gpus_per_node",
        "8",
        "--max_batch_size",
        "256",
        "--max_num_tokens",
        "8192",
        "--max_seq_len",
        "8192",
        "--extra_llm_api_options",
        "/run/server-0.options.yaml",
    ]
    assert trtllm.launch_prefix(cfg) == []
    assert trtllm.options(cfg, TEACHER) == {
        "enable_chunked_prefill": True,
        "cuda_graph_config": {"enable_padding": True, "max_batch_size": 256},
        "kv_cache_config": {"dtype": "fp8", "enable_block_reuse": True, "free_gpu_memory_fraction": 0.9},
        "enable_iter_perf_stats": True,
        "print_iter_log": False,
    }


def test_trtllm_bf16_on_two_nodes() -> None:
    cfg = trtllm.Config(tp_size=8, pp_size=2, nodes=2, max_seq_len=4096)
    argv = trtllm.command(cfg, TEACHER, "0.0.0.0", 8000, Path("/run/o.yaml"))
    assert argv[argv.index("--gpus_per_node") + 1] == "8"
    assert argv[argv.index("--pp_size") + 1] == "2"
    assert argv[argv.index("--max_seq_len") + 1] == "4096"
    assert trtllm.launch_prefix(cfg) == ["trtllm-llmapi-launch"]


def test_trtllm_has_no_key_in_both_places() -> None:
    cfg = trtllm.Config()
    flags = {word[2:] for word in trtllm.command(cfg, TEACHER, "h", 1, Path("/o.yaml")) if word.startswith("--")}
    nested = trtllm.options(cfg, TEACHER)
    keys = set(nested) | set(nested["kv_cache_config"])
    assert not flags & keys
    assert "kv_cache_free_gpu_memory_fraction" not in flags


def test_trtllm_refuses_spaces() -> None:
    spaced = Model(name="m", hf_path="/models/my model", context_length=8)
    with pytest.raises(ValueError, match="'/models/my model' holds a space"):
        trtllm.command(trtllm.Config(), spaced, "h", 1, Path("/o.yaml"))


def test_vllm() -> None:
    model = Model(name="student", hf_path="/models/student", context_length=4096)
    cfg = vllm.Config(tp_size=2, enable_prefix_caching=False)
    assert vllm.command(cfg, model, "127.0.0.1", 8001) == [
        "vllm",
        "serve",
        "/models/student",
        "--host",
        "127.0.0.1",
        "--port",
        "8001",
        "--served-model-name",
        "student",
        "--tensor-parallel-size",
        "2",
        "--pipeline-parallel-size",
        "1",
        "--max-num-seqs",
        "256",
        "--max-num-batched-tokens",
        "8192",
        "--max-model-len",
        "4096",
        "--gpu-memory-utilization",
        "0.9",
        "--kv-cache-dtype",
        "auto",
        "--generation-config",
        "vllm",
        "--no-enable-prefix-caching",
    ]
    assert vllm.options(cfg, model) == {}


@pytest.mark.parametrize("module", [trtllm, vllm])
def test_a_chat_template_is_passed_as_a_path(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "chat_template_path", lambda model: Path("/templates/x.jinja"))
    argv = module.command(module.Config(), TEACHER, "h", 1, Path("/o.yaml"))  # type: ignore[attr-defined]
    assert argv[-1] == "/templates/x.jinja"
    assert argv[-2] in ("--chat_template", "--chat-template")


def test_external_endpoints() -> None:
    cfg = external.Config(urls=["http://a:1/", "https://b"], model="m", api_key_env="KEY")
    assert external.endpoints(cfg) == [Endpoint("http://a:1", "m", "KEY"), Endpoint("https://b", "m", "KEY")]
    with pytest.raises(ValueError, match="empty"):
        external.endpoints(external.Config(model="m"))
    for url in ("b:1", "http://b:1/v1", "http://b:1/v1/"):
        with pytest.raises(ValueError, match=r"without /v1"):
            external.endpoints(external.Config(urls=[url], model="m"))
