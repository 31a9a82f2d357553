"""What the plug-ins would start, word for word."""

from pathlib import Path

import pytest

from nemo_ext.models.model import Model
from nemo_ext.serving.address import Endpoint
from nemo_ext.serving.server import Place
from nemo_ext.serving.servers import external, sglang, trtllm, vllm

TEACHER = Model(name="teacher", hf_path="/models/Llama-3.1-405B-Instruct-FP8", context_length=8192)
STUDENT = Model(name="student", hf_path="/models/student", context_length=4096)
OPTIONS = Path("/run/server-0.options.yaml")


def place(**more: object) -> Place:
    return Place(**{"host": "0.0.0.0", "port": 8000, "options_path": OPTIONS, **more})  # type: ignore[arg-type]


FP8 = (
    "trtllm-serve /models/Llama-3.1-405B-Instruct-FP8 --backend pytorch --host 0.0.0.0 --port 8000 --tp_size 8 --pp_size 1 "
    "--gpus_per_node 8 --max_batch_size 256 --max_num_tokens 8192 --max_seq_len 8192 "
    "--extra_llm_api_options /run/server-0.options.yaml"
)


def test_trtllm_fp8_on_one_node() -> None:
    cfg = trtllm.Config(tp_size=8, kv_cache_dtype="fp8")
    assert trtllm.command(cfg, TEACHER, place()) == FP8.split()
    assert (cfg.tasks, cfg.launch_mpi) == (1, None)
    assert trtllm.options(cfg, TEACHER) == {
        "enable_chunked_prefill": True,
        "cuda_graph_config": {"enable_padding": True, "max_batch_size": 256},
        "kv_cache_config": {"dtype": "fp8", "enable_block_reuse": True, "free_gpu_memory_fraction": 0.9},
        "print_iter_log": False,
    }


def test_trtllm_bf16_on_two_nodes() -> None:
    cfg = trtllm.Config(tp_size=8, pp_size=2, nodes=2, max_seq_len=4096)
    for task in (0, 9):  # the launcher makes workers of the others
        argv = trtllm.command(cfg, TEACHER, place(task=task, rendezvous="node1:2"))
        expected = FP8.replace("--pp_size 1", "--pp_size 2").replace("max_seq_len 8192", "max_seq_len 4096")
        assert argv == ["trtllm-llmapi-launch", *expected.split()]
    assert (cfg.tasks, cfg.launch_mpi) == (16, "pmix")


def test_trtllm_has_no_key_in_both_places() -> None:
    cfg = trtllm.Config()
    flags = {word[2:] for word in trtllm.command(cfg, TEACHER, place()) if word.startswith("--")}
    nested = trtllm.options(cfg, TEACHER)
    assert flags and not flags & (set(nested) | set(nested["kv_cache_config"]))
    assert "kv_cache_free_gpu_memory_fraction" not in flags


@pytest.mark.parametrize("path", ["/models/my model", "/models/a*", "/models/[x]", "/models/tab\there"])
def test_trtllm_over_nodes_refuses_what_its_launcher_would_expand(path: str) -> None:
    spaced = Model(name="m", hf_path=path, context_length=8)
    with pytest.raises(ValueError, match="which trtllm-llmapi-launch would expand; rename it"):
        trtllm.command(trtllm.Config(tp_size=2, nodes=2), spaced, place())
    assert trtllm.command(trtllm.Config(), spaced, place())[1] == path, "no launcher on one node"


def test_trtllm_over_nodes_needs_a_folder() -> None:
    hub = Model(name="m", hf_path="meta-llama/Llama-3.1-8B", context_length=8)
    with pytest.raises(ValueError, match="loads a folder that all of them see"):
        trtllm.command(trtllm.Config(tp_size=2, nodes=2), hub, place())


def test_trtllm_starts_its_own_mpi_on_one_node_only() -> None:
    images_own = {"PATH": "/bin", "OMPI_MCA_coll_hcoll_enable": "0", "PMIX_MCA_gds": "hash", "NCCL_DEBUG": "WARN"}
    step = dict.fromkeys(("SLURM_JOB_ID", "PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_UNIVERSE_SIZE"), "1")
    environ = images_own | step
    assert trtllm.environment(trtllm.Config(), environ) == images_own
    assert trtllm.environment(trtllm.Config(tp_size=2, nodes=2), environ) == environ


VLLM = (
    "vllm serve /models/student --host 127.0.0.1 --port 8000 --served-model-name student --tensor-parallel-size 2 "
    "--pipeline-parallel-size 1 --max-num-seqs 256 --max-num-batched-tokens 8192 --max-model-len 4096 "
    "--gpu-memory-utilization 0.9 --kv-cache-dtype auto --generation-config vllm --no-enable-prefix-caching"
)


def test_vllm() -> None:
    cfg = vllm.Config(tp_size=2, enable_prefix_caching=False)
    assert vllm.command(cfg, STUDENT, place(host="127.0.0.1", options_path=None)) == VLLM.split()
    assert vllm.options(cfg, STUDENT) == {}


SGLANG = (
    "python3 -m sglang.launch_server --model-path /models/student --served-model-name student --host 0.0.0.0 --port 8000 "
    "--tp-size 8 --pp-size {pp} --max-running-requests 256 --chunked-prefill-size 8192 --context-length 4096 "
    "--mem-fraction-static 0.85 --kv-cache-dtype fp8_e4m3 --sampling-defaults openai --enable-metrics"
)


def test_sglang_on_one_node() -> None:
    cfg = sglang.Config(tp_size=8, kv_cache_dtype="fp8", enable_prefix_caching=False)
    assert sglang.command(cfg, STUDENT, place()) == [*SGLANG.format(pp=1).split(), "--disable-radix-cache"]
    assert cfg.tasks == 1


def test_sglang_on_two_nodes_is_a_task_each() -> None:
    cfg = sglang.Config(tp_size=8, pp_size=2, nodes=2, kv_cache_dtype="fp8")
    argv = sglang.command(cfg, STUDENT, place(task=1, rendezvous="node1:20001"))
    assert argv == f"{SGLANG.format(pp=2)} --nnodes 2 --node-rank 1 --dist-init-addr node1:20001".split()
    assert (cfg.tasks, cfg.launch_mpi) == (2, None)


@pytest.mark.parametrize("module", [sglang, trtllm, vllm])
def test_a_chat_template_is_passed_as_a_path(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "chat_template_path", lambda model: Path("/templates/x.jinja"))
    argv = module.command(module.Config(), TEACHER, place())  # type: ignore[attr-defined]
    assert argv[-1] == "/templates/x.jinja"
    assert argv[-2] in ("--chat_template", "--chat-template")


def test_external_endpoints() -> None:
    urls = ["http://a:1/", "https://b/v1", "http://c:2/v1/", "https://d/openai/v1"]
    cfg = external.Config(urls=urls, model="m", api_key_env="KEY", concurrency=9)
    bases = ["http://a:1", "https://b", "http://c:2", "https://d/openai"]
    assert external.endpoints(cfg) == [Endpoint(base, "m", "KEY", 9) for base in bases]
    assert external.endpoints(external.Config(urls=["http://a:1"]))[0].model == "", "the one it lists"


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ([], "empty"),
        (["b:1"], "write http"),
        (["http://"], "write http"),
        (["http://b:port"], "write http"),
        (["http://b:1/v1?key=s3cret"], "write http"),
        (["http://me:s3cret@b:1"], "the one of b holds a user or password"),
        (["me:s3cret@b:1"], "write http"),
    ],
)
def test_external_urls_that_are_none(urls: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        external.endpoints(external.Config(urls=urls, model="m"))
    assert "s3cret" not in str(raised.value)
