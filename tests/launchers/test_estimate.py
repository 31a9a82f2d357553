"""What a plan says it will take, before anything is started."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from launchers.estimates import estimate, estimate_serving
from launchers.estimates.step_time import step_time
from launchers.executors import local, slurm
from launchers.planning import resolvers
from nemo_ext.machine.gpus import gpu_named
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.models.published_shapes import SHAPES
from recipes.asking.strategies import OTHERS
from recipes.work import Asking
from tests.bench import bench_plan
from tests.composing import compose_recipe, plan, resolve_recipe
from tests.conftest import ROOT
from tests.launchers.conftest import Launch

SLURM = slurm.Config()


def estimates(recipe: str, *words: str, cluster=SLURM, run_dir: Path = Path("runs/x")) -> dict[str, estimate.Estimate]:
    stages = list(resolve_recipe(recipe, *words, run_dir=run_dir).values())
    gpu = estimate.gpu_of(cluster, stages)
    return {each.stage: each for each in estimate.estimate(stages, stages, cluster, gpu)}


def lines(each: estimate.Estimate) -> dict[str, str]:
    return dict(each.lines)


def test_sft_full_on_64_gpus() -> None:
    train = estimates("sft_full")["train"]
    said = lines(train)
    assert "8,030,261,248 parameters" in said["model"]
    assert "60,000 steps x 512 = 30.7 M samples, 12.4 B tokens (404 a sample, assumed)" in said["data"]
    assert said["disk"] == "8 checkpoint(s) x 112 GB = 899 GB"
    assert "4 each, 79% filled" in said["step"] and "40% MFU" in said["time"] and "assumed for h100" in said["time"]
    assert train.memory == "24.5/79.1" and train.refusal is None and not train.warnings
    assert train.hours and train.gpu_hours == pytest.approx(64 * train.hours)


def test_the_mfu_of_the_cluster_is_taken() -> None:
    said = lines(estimates("sft_full", cluster=slurm.Config(mfu=0.2))["train"])["time"]
    assert "20% MFU" in said and "cluster.mfu" in said
    with pytest.raises(ValueError, match=r"cluster\.mfu=40"):
        estimates("sft_full", cluster=slurm.Config(mfu=40))


def test_an_unknown_gpu_refuses_nothing() -> None:
    words = (
        "stages.train.use_distributed_optimizer=false",
        "stages.train.tensor_model_parallel_size=1",
        "stages.train.data_parallel_size=64",
    )
    train = estimates("sft_full", *words, cluster=slurm.Config(gpu=None))["train"]
    assert (train.hours, train.refusal, train.memory) == (None, None, "161.8")
    assert lines(train)["memory"].startswith("161.8 GiB per GPU")


def test_this_machine_is_asked_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "list_devices", lambda: ["NVIDIA H200"] * 8)
    assert estimates("sft_full", cluster=local.Config())["train"].memory == "24.5/139.8"
    monkeypatch.setattr(estimate, "list_devices", lambda: pytest.fail("no stage wants a GPU"))
    assert estimates("sft_full", "+scale=tiny", cluster=local.Config())["train"].memory == ""


def test_prepared_data_replaces_the_assumption(tmp_path: Path) -> None:
    folder = tmp_path / "prepare_sft" / "train"
    folder.mkdir(parents=True)
    facts = {"num_samples": 13_972_791, "num_tokens": 13_972_791 * 350, "num_trained_tokens": 1}
    (folder / "data.json").write_text(json.dumps(facts))
    train = estimates("sft_full", run_dir=tmp_path)["train"]
    assert "10.8 B tokens (350 a sample); 2.20 epochs of 13,972,791 samples" in lines(train)["data"]
    assumed = estimates("sft_full")["train"]
    assert train.hours and assumed.hours and train.hours < assumed.hours  # 45 packs: 3 a replica, not 4


def test_nothing_is_assumed_of_data_for_the_cpu() -> None:
    train = estimates("sft_full", "+scale=tiny")["train"]
    batch = resolve_recipe("sft_full", "+scale=tiny")["train"].tasks[0].content["global_batch_size"]
    assert lines(train) == {
        "model": "tiny_base, 918,656 parameters",
        "data": f"240 steps x {batch} = {240 * batch:,} samples",
        "disk": "6 checkpoint(s) x 14.7 MB = 88.2 MB",
    }


def test_synthesis_at_published_rates() -> None:
    found = estimates("openmathinstruct2")
    seeds = 7500 * 512 + 7473 * 64
    assert found["solve_seeds"].gpu_hours == pytest.approx(seeds * 500 / 2919 / 3600 * 8)
    assert found["solve_seeds"].hours == pytest.approx(found["solve_seeds"].gpu_hours / 64)  # 8 of 64 tasks at once
    assert found["evaluate"].summary.startswith("51,112 completions")  # 6,389 problems, 8 models
    judge = found["decontaminate"]
    assert judge.gpu_hours is None and judge.summary.startswith("unknown")
    table = estimate.table(list(found.values()), gpu_named("h100"))
    assert table[-1].split()[0] == "total" and table[-1].endswith("without decontaminate")
    total = sum(each.gpu_hours or 0 for each in found.values())
    assert table[-1].split()[1] == f"{total:,.0f}"


def test_no_published_rate_is_unknown() -> None:
    evaluate = estimates("sft_70b")["evaluate"]
    assert evaluate.gpu_hours is None and "no published rate for llama31_70b on 4 h100" in evaluate.summary
    assert estimates("sft_full", cluster=slurm.Config(gpu="a100"))["evaluate"].gpu_hours is None


def test_rows_on_disk_replace_published_counts(tmp_path: Path) -> None:
    folder = tmp_path / "prepare_problems"
    folder.mkdir()
    rows = [{"id": str(n), "problem_source": "math" if n else "gsm8k"} for n in range(3)]
    (folder / "output.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = estimates("openmathinstruct2", run_dir=tmp_path)["write_problems"]
    (folder / "_DONE").touch()
    after = estimates("openmathinstruct2", run_dir=tmp_path)["write_problems"]
    assert before.summary.startswith("674,730 completions")
    assert after.summary.startswith("170 completions")  # 2 x 80 + 10


def test_rows_are_counted_by_the_column_that_chooses_their_prompt(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    subjects = ["algebra"] * 3 + ["geometry"] * 2
    rows.write_text("".join(json.dumps({"problem": "p", "subject": each}) + "\n" for each in subjects))
    asking = Asking(input=str(rows), by="subject", samples={"algebra": 4, OTHERS: 1})
    assert estimate_serving._of_task(asking, None, 1) == (14, "rows of its input")


def test_tensor_parallelism_over_nodes_is_warned_of() -> None:
    words = (
        "stages.train.resources.nodes=16",
        "stages.train.resources.gpus=4",
        "stages.train.tensor_model_parallel_size=8",
        "stages.train.data_parallel_size=8",
    )
    (warning,) = estimates("sft_full", *words)["train"].warnings
    assert "tensor_model_parallel_size=8 spans nodes of 4 GPUs" in warning


def test_a_tight_fit_is_warned_of() -> None:
    words = (
        "stages.train.tensor_model_parallel_size=1",
        "stages.train.data_parallel_size=64",
        "stages.train.pack_length=5120",
    )
    train = estimates("sft_full", *words, cluster=slurm.Config(gpu="h100"))["train"]
    assert train.refusal is None and "it may fit and may not" in train.warnings[0]


def test_what_the_model_does_not_divide_into_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"stages\.train: pipeline x virtual pipeline size = 3: the model has 32 layers"
    ):
        estimates("sft_full", "stages.train.pipeline_model_parallel_size=3", "stages.train.resources.nodes=24")


def test_a_table_only_for_gpus() -> None:
    found = list(estimates("sft_full", "+scale=tiny").values())
    assert [each.stage for each in found] == ["train"]
    assert estimate.table(found, None) == []
    assert estimate.table([], None) == []


def test_step_time() -> None:
    gpu, shape = gpu_named("h100"), SHAPES["Llama-3.1-8B"]
    eight = step_time(shape, TrainSettings(tensor_model_parallel_size=4, data_parallel_size=2), gpu)
    assert (eight.packs, eight.micro_batches, eight.bubble) == (52, 26, 0)
    assert 0.38 < eight.mfu < 0.40  # what packs leave empty is all that is lost
    piped = TrainSettings(pipeline_model_parallel_size=4, data_parallel_size=2)
    assert step_time(shape, piped, gpu).bubble == pytest.approx(3 / (26 + 3))
    interleaved = TrainSettings(
        pipeline_model_parallel_size=4, virtual_pipeline_model_parallel_size=4, data_parallel_size=2
    )
    found = step_time(shape, interleaved, gpu)
    assert found.micro_batches == 28 and found.bubble == pytest.approx(0.75 / 28.75)  # whole rounds of the pipeline
    more = step_time(shape, TrainSettings(tensor_model_parallel_size=4, data_parallel_size=16), gpu)
    assert more.micro_batches == 4 and more.exposed_s > eight.exposed_s
    assert eight.seconds / 8 < more.seconds < eight.seconds  # eight times the GPUs are not eight times as fast


def test_fp8_needs_a_gpu_that_has_it() -> None:
    shape, fp8 = SHAPES["Llama-3.1-8B"], TrainSettings(fp8="hybrid")
    assert (
        step_time(shape, fp8, gpu_named("h100")).seconds < step_time(shape, TrainSettings(), gpu_named("h100")).seconds
    )
    with pytest.raises(ValueError, match="fp8=hybrid: a100 has none"):
        step_time(shape, fp8, gpu_named("a100"))


def test_checkpoint_spacing() -> None:
    assert resolvers.every(60000, 6) == 10000
    assert list(resolvers.spaced(20000, 6, 10)) == [3330, 6660, 9990, 13320, 16650, 20000]
    assert list(resolvers.spaced(240, 6, 10)) == [40, 80, 120, 160, 200, 240]
    for wrong in ((181, 6), (181, 6, 100), (5, 6)):
        with pytest.raises(ValueError, match=f"{wrong[0]} steps have no {wrong[1]}"):
            resolvers.every(*wrong)


def test_the_documented_table_is_what_is_computed() -> None:
    """recipes/MEASURED.md: `python -m tests.bench.bench_plan` prints its rows."""
    text = (ROOT / "recipes" / "MEASURED.md").read_text()
    rows = [bench_plan.row(each) for each in bench_plan.figures()]
    assert len(rows) > 20
    assert [row for row in rows if row not in text] == []
    assert len(re.findall(r"^\| .* \| (?:exact|[+-][\d.]+ %) \| ", text, flags=re.M)) == len(rows)


def test_published_figures_are_met() -> None:
    found = {each.name: each for each in bench_plan.figures()}
    exact = [each.name for each in found.values() if each.ours == each.published]
    assert {f"parameters, Llama-3.1-{size}" for size in ("8B", "70B", "405B")} <= set(exact)
    assert found["epochs, 60,000 steps x 512"].ours == pytest.approx(2.1986, abs=5e-5)
    for name, each in found.items():
        if each.unit == "MiB":
            assert abs(each.error) < 0.015, name  # measured memory
        if each.unit == "TFLOP/s per GPU":
            assert abs(each.error) < (0.025 if "1,664" in name else 0.002), name
        if each.unit == "tokens/s per GPU":
            assert -0.25 < each.error < 0, name  # the assumed MFU is below what was reached


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launch_here: Launch) -> Launch:
    """On a Slurm cluster whose programs, if any, are in tmp_path."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return lambda *words: launch_here("+recipe=sft_full", "cluster=slurm", "data=rows.jsonl", *words)


TOO_LARGE = ("stages.train.tensor_model_parallel_size=1", "stages.train.data_parallel_size=64", "stages.train.use_distributed_optimizer=false")  # fmt: skip


def test_what_cannot_fit_is_refused_in_one_line(tmp_path: Path, launch: Launch) -> None:
    done = launch(*TOO_LARGE)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    for said in (
        "stages.train needs 161.8 GiB per GPU",
        "optimizer 89.7",
        "one h100 has 79.1",
        "It needs 70.8 GiB with stages.train.use_distributed_optimizer=true.",
        "cluster.check_memory=false",
    ):
        assert said in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_expert_may_go_on(launch: Launch) -> None:
    done = launch(*TOO_LARGE, "cluster.check_memory=false")
    assert done.returncode == 2 and "no sbatch" in done.stderr


def test_a_dry_run_shows_the_plan_and_the_refusal(launch: Launch) -> None:
    done = launch(*TOO_LARGE, "dry_run=true")
    assert done.returncode == 2 and "stages.train needs 161.8 GiB" in done.stderr
    assert "# estimate  memory  161.8 of 79.1 GiB per GPU" in done.stdout and "train_iters: 60000" in done.stdout


def test_a_dry_run_ends_with_the_table(launch: Launch) -> None:
    done = launch("dry_run=true")
    assert done.returncode == 0 and all(line.startswith("warning: ") for line in done.stderr.splitlines())
    table = done.stdout.rstrip().splitlines()[-5:]
    assert table[0].startswith("# estimate (h100, not measured") and table[1].split()[1] == "stage"
    assert [line.split()[1] for line in table[2:]] == ["train", "evaluate", "total"]


def test_the_plan_is_only_text(tmp_path: Path) -> None:
    """Estimating reads the recipe as composed, and changes nothing in it."""
    cfg = compose_recipe("sft_full")
    stages = plan.resolve(cfg, tmp_path)
    before = [task.config for stage in stages for task in stage.tasks]
    estimate.estimate(stages, stages, SLURM, gpu_named("h100"))
    assert [task.config for stage in stages for task in stage.tasks] == before


def test_the_table_is_shown_before_the_jobs(tmp_path: Path, launch: Launch) -> None:
    """With stand-ins for Slurm's clients; tests/slurm has the real ones."""
    clients = {"sbatch": "echo 4711", "scontrol": "echo MaxArraySize = 1001", "squeue": ":"}
    for name, script in clients.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    done = launch("cluster.check_paths=false")
    assert done.returncode == 0 and done.stdout == "", done.stderr
    lines = done.stderr.splitlines()
    shown = lines[next(i for i, line in enumerate(lines) if line.startswith("estimate (h100, not measured")) :]
    assert shown[1].split()[:2] == ["stage", "tasks"]
    assert [line.split()[0] for line in shown[2:5]] == ["train", "evaluate", "total"]
    assert "job 4711" in shown[5] and "\x1b" not in done.stderr


def test_every_variant_of_a_training_is_counted() -> None:
    """Trainings of 4,296 to 60,000 steps, side by side or one after another."""
    stages = list(resolve_recipe("ablation_scale").values())
    gpu = gpu_named("h100")
    train = next(stage for stage in stages if stage.name == "train")
    hours = [
        estimate.estimate([replace(train, tasks=[task])], stages, SLURM, gpu)[0].hours or 0.0 for task in train.tasks
    ]
    for at_once in (1, 4):
        cluster = slurm.Config(max_parallel_tasks=at_once)
        together = estimate.estimate([train], stages, cluster, gpu)[0]
        assert together.gpu_hours == pytest.approx(64 * sum(hours))
        assert together.hours == pytest.approx(max(sum(hours) / at_once, max(hours)))
        assert "60,000 steps" in together.summary
