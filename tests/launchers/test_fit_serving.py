"""What the plan says of servers' memory, and what it refuses; and that every preset is what its comment says."""

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from launchers import sizing
from launchers.estimates import estimate, fit_serving
from launchers.estimates.fit_serving import ServingFit
from launchers.executors import slurm
from launchers.planning import resolvers
from launchers.planning.plan import PlannedStage, Task
from launchers.planning.resolvers import CONF
from nemo_ext.machine.gpus import gpu_named
from nemo_ext.serving.server import GpuServer, load
from recipes.stage import Process, Resources
from recipes.stages.generation import generate
from tests.composing import resolve_recipe

PRESETS = sorted(path.stem for path in (CONF / "server").glob("*.yaml"))
GPU_PRESETS = [name for name in PRESETS if name not in ("embedded", "external")]


def figures(recipe: str, *words: str, gpu: str | None = "h100") -> dict[str, estimate.Estimate]:
    stages = list(resolve_recipe(recipe, *words).values())
    cluster = slurm.Config(gpu=gpu)
    return {each.stage: each for each in estimate.estimate(stages, stages, cluster, estimate.gpu_of(cluster, stages))}


def test_there_are_presets_for_the_teacher_and_the_students() -> None:
    assert {"trtllm", "trtllm_1gpu", "trtllm_405b_fp8", "trtllm_405b_bf16", "trtllm_70b", "vllm", "sglang"} <= set(
        PRESETS
    )


@pytest.mark.parametrize("name", GPU_PRESETS)
def test_a_preset_is_what_its_comment_says(name: str) -> None:
    """After a wanted change: python -m launchers.sizing <preset>, and put what it prints into the comment."""
    resolvers.register()
    text = (CONF / "server" / f"{name}.yaml").read_text()
    named = sizing.pairs(name)
    assert {gpu for _, gpu in named} == {"h100", "h200"}
    for model, gpu in named:
        assert f"#   {sizing.row(sizing.preset(name), model, gpu)}\n" in text
    server = sizing.preset(name)
    assert server.concurrency >= server.max_batch_size, "requests enough to fill it"


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_command_line_may_change_is_listed(name: str) -> None:
    """Hydra refuses server.<key>=... for a key that the file leaves out."""
    content: Any = OmegaConf.load(CONF / "server" / f"{name}.yaml")
    common = {"kind", "concurrency"}
    sizes = {
        "tp_size",
        "pp_size",
        "nodes",
        "replicas",
        "max_batch_size",
        "max_num_tokens",
        "max_seq_len",
        "kv_cache_dtype",
    }
    assert set(content) >= (common | sizes if name in GPU_PRESETS else common)
    if name == "external":
        content.urls = ["http://h:1"]
    loaded = load({str(key): value for key, value in content.items()})
    assert isinstance(loaded, GpuServer) == (name in GPU_PRESETS)


def test_the_teacher_in_fp8_on_one_node() -> None:
    found = figures("openmathinstruct2", "server=trtllm_405b_fp8")
    solve = found["solve_seeds"]
    said = dict(solve.lines)
    assert solve.memory == "53.7/79.1" and solve.refusal is None and not solve.warnings
    assert said["memory"].startswith("47.7 GiB of weights") and "32,256 bytes of cache per token" in said["memory"]
    assert "92 sequences of 8,192, 214 of 3,548 (prompts of 1,500, assumed); max_batch_size 128" in said["cache"]
    assert "published" in said["time"]
    assert not found["evaluate_teacher"].warnings


@pytest.mark.parametrize("recipe", ["openmathinstruct2", "sft_full", "sft_70b", "evaluate_checkpoint"])
def test_the_default_servers_fit_their_stages(recipe: str) -> None:
    for each in figures(recipe).values():
        assert each.refusal is None and each.warnings == [], each.stage


def planned(preset: str, model: str, max_tokens: int = 2048, **changes: Any) -> PlannedStage:
    """One stage of a recipe, without composing it."""
    resolvers.register()
    content = {
        "uses": "generate",
        "name": "solve",
        "input": "rows.jsonl",
        "output_dir": "/run/solve",
        "server": OmegaConf.to_container(OmegaConf.load(CONF / "server" / f"{preset}.yaml"), resolve=True) | changes,
        "model": asdict(sizing.model_named(model)),
        "sampling": {"max_tokens": max_tokens},
    }
    processes = [Process("server-0", [], service=True)]
    module: Any = SimpleNamespace(Config=generate.Config, work=generate.work, processes=lambda cfg, path: processes)
    task = Task("solve", "", content, module)
    return PlannedStage("solve", "generate", [], Resources(nodes=1, gpus=8), [task])


def fit(preset: str, model: str, *, gpu: str | None = "h100", **more: Any) -> ServingFit:
    return fit_serving.fit_serving(planned(preset, model, **more), gpu_named(gpu) if gpu else None)


TEACHER = "llama31_405b_instruct"


def test_the_teacher_in_bf16_takes_two_nodes() -> None:
    solve = fit("trtllm", f"{TEACHER}_bf16")
    assert solve.refusal is not None
    for said in (
        "stages.solve: llama31_405b_instruct_bf16 in bf16 takes 94.5 GiB of weights",
        "one h100 has 79.1",
        "server.pp_size=2 server.nodes=2 stages.solve.resources.nodes=2 stages.solve.resources.gpus=8",
        "model.weights_dtype=fp8",
        "cluster.check_memory=false",
    ):
        assert said in solve.refusal
    assert "nothing is left for it" in dict(solve.lines)["cache"]
    fits = fit("trtllm_405b_bf16", f"{TEACHER}_bf16")
    assert (fits.refusal, fits.memory) == (None, "53.2/79.1")
    assert fit("trtllm", f"{TEACHER}_bf16", gpu="h200").refusal is None


def test_a_long_sequence_is_refused_with_the_length_that_fits() -> None:
    refusal = fit("trtllm_70b_fp8", "llama31_70b_instruct", max_seq_len=131072).refusal
    assert refusal is not None and "one sequence of 131,072 tokens 10.0 of cache" in refusal
    assert "It fits with server.max_seq_len=32768. So may an fp8 checkpoint" in refusal
    bf16 = fit("trtllm_70b_fp8", "llama31_70b_instruct", max_seq_len=4096, max_num_tokens=65536).refusal
    assert bf16 is not None and "It fits with server.tp_size=4 stages.solve.resources.nodes=4" in bf16
    nothing = fit("vllm_1gpu", f"{TEACHER}_bf16").refusal
    assert nothing is not None and "Nothing tried makes it fit: use GPUs with more memory" in nothing


def test_fewer_sequences_than_the_batch_are_warned_of() -> None:
    solve = fit("trtllm_405b_fp8", TEACHER, max_batch_size=512)
    (warning,) = solve.warnings
    assert "a server holds 211 sequences of 3,548 tokens and not server.max_batch_size=512" in warning
    assert "server.max_batch_size=208 says so" in warning and solve.refusal is None


def test_completions_that_leave_no_room_for_the_prompt_are_warned_of() -> None:
    assert (
        "max_tokens=8000 leaves 192 of the 8,192 tokens"
        in fit("trtllm_405b_fp8", TEACHER, max_tokens=8000).warnings[0]
    )


def test_an_unknown_gpu_or_model_refuses_nothing() -> None:
    solve = fit("trtllm", f"{TEACHER}_bf16", gpu=None)
    assert (solve.refusal, solve.memory) == (None, "100.4")
    student = figures("evaluate_checkpoint")["evaluate"]
    assert student.memory == "" and dict(student.lines)["memory"].endswith("no model that is known by name")


def test_sizes_the_model_does_not_divide_into_name_the_stage() -> None:
    with pytest.raises(ValueError, match=r"stages\.solve: server\.tp_size=6"):
        fit("trtllm", TEACHER, tp_size=6)


def test_an_external_server_leaves_the_gpus_idle() -> None:
    words = ("server=external", "server.urls=[http://h:1/v1]", "server.model=x", "server.concurrency=64")
    solve = figures("openmathinstruct2", *words, "stages.solve_seeds.resources.gpus=8")["solve_seeds"]
    assert "its 8 GPUs per node would be idle" in solve.warnings[0] and solve.gpu_hours is None
    without = resolve_recipe("openmathinstruct2", *words)["solve_seeds"]
    assert without.resources.gpus == 0 and len(without.tasks[0].processes) == 1
    assert without.tasks[0].content["server"]["concurrency"] == 64


def test_not_one_shard_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = resolve_recipe("openmathinstruct2")["solve_new"]
    loaded: list[object] = []
    monkeypatch.setattr(fit_serving, "load", lambda mapping: loaded.append(mapping) or load(mapping))
    fit_serving.fit_serving(stage, None)
    assert len(stage.tasks) == 2880 and len(loaded) == 1
