"""Tasks out of recipes, and what makes a stage run again."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from launchers.planning import plan
from nemo_ext.records import manifest
from recipes.run_stage import config_hash
from tests.composing import compose_recipe, resolve_recipe


def planned(run_dir: Path, *words: str) -> dict[str, plan.PlannedStage]:
    """A recipe of one stage, which is composed and written soon."""
    return resolve_recipe("generate", "+scale=tiny", *words, run_dir=run_dir)


def finish(task: plan.Task) -> None:
    manifest.write(task.folder, task.stage, "x", task.config_hash, manifest.Facts(), 0.0)


@pytest.mark.parametrize("left", ["", "uses: gen"])
def test_results_without_a_whole_config_are_not_taken_for_others(tmp_path: Path, left: str) -> None:
    task, other = (planned(tmp_path, f"sampling.temperature={heat}") for heat in (0.5, 0.6))
    plan.write_configs([*task.values()], redo=False)
    (first,) = task["generate"].tasks
    first.config_path.write_text(left) if left else first.config_path.unlink()
    plan.write_configs([*other.values()], redo=False)  # nothing was made yet
    first.config_path.unlink()
    finish(first)
    plan.write_configs([*task.values()], redo=False)
    assert first.config_path.read_text() == first.config, "_DONE says that it is of this config"
    first.config_path.unlink()
    with pytest.raises(ValueError, match=r"generate has results and no config\.yaml"):
        plan.write_configs([*other.values()], redo=False)
    (first.folder / manifest.DONE).unlink()
    (first.folder / "completions.jsonl").touch()
    with pytest.raises(ValueError, match="has results and no config.yaml"):
        plan.write_configs([*task.values()], redo=False)


def test_a_stage_left_out_that_is_out_of_date_is_named(tmp_path: Path) -> None:
    stages = resolve_recipe("sft_full", "+scale=tiny", run_dir=tmp_path)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    for name in ("average", "export", "prepare_benchmarks"):
        (task,) = stages[name].tasks
        facts = manifest.Facts(inputs=[rows] if name == "average" else [])
        task.folder.mkdir()
        manifest.write(task.folder, name, "x", task.config_hash, facts, 0.0)
    selected = plan.select([*stages.values()], ["evaluate"], None)
    assert plan.stale([*stages.values()], selected) == []
    rows.write_text("{}\n{}\n")
    (warning,) = plan.stale([*stages.values()], selected)
    assert warning == f"average is left out and out of date: input {rows} changed"
    assert plan.stale([*stages.values()], plan.select([*stages.values()], ["average", "evaluate"], None)) == []


def test_variants_are_tasks_with_a_folder_and_their_own_keys(tmp_path: Path) -> None:
    stage = resolve_recipe("sft_full", "+scale=tiny", run_dir=tmp_path)["evaluate"]
    assert [task.name for task in stage.tasks] == ["evaluate/base", "evaluate/average"]
    base, average = stage.tasks
    assert average.folder == tmp_path / "evaluate" / "average"
    assert average.typed().model.hf_path == str(tmp_path / "average" / "average")
    assert average.typed().prompt == base.typed().prompt and not average.typed().variants
    assert average.config_hash != base.config_hash


def test_shards_differ_in_their_number_alone(tmp_path: Path) -> None:
    stage = resolve_recipe("openmathinstruct2", run_dir=tmp_path)["solve_seeds"]
    assert [task.part for task in stage.tasks][:2] == ["shard_00", "shard_01"] and len(stage.tasks) == 64
    first, last = stage.tasks[0].content, stage.tasks[-1].content
    assert {key for key in first if first[key] != last[key]} == {"shard", "output_dir"}
    assert [task.typed().shard for task in stage.tasks] == list(range(64))


def test_shards_have_the_text_that_each_alone_would_have(tmp_path: Path) -> None:
    stage = sharded(tmp_path, "stages.generate.shards=16")
    plan.write_configs([stage], redo=False)
    assert [task.config_path.read_text() for task in stage.tasks] == [task.config for task in stage.tasks]
    assert len({task.config for task in stage.tasks}) == 16


def test_shards_sort_by_number(tmp_path: Path) -> None:
    parts = [task.part for task in resolve_recipe("openmathinstruct2", run_dir=tmp_path)["solve_new"].tasks]
    assert parts == sorted(parts) and len(parts) == 2880


def test_shards_and_variants_together_are_refused(tmp_path: Path) -> None:
    cfg = compose_recipe("sft_full", "+scale=tiny", "stages.evaluate.shards=2")
    with pytest.raises(ValueError, match=r"stages\.evaluate has both"):
        plan.resolve(cfg, tmp_path)


def test_a_variant_with_an_unknown_key_is_named(tmp_path: Path) -> None:
    cfg = compose_recipe("sft_full", "+scale=tiny", "+stages.evaluate.variants.base.modle=x")
    with pytest.raises(ValueError, match=r"stages\.evaluate\.variants\.base has no 'modle'; did you mean model"):
        plan.resolve(cfg, tmp_path)


def test_after_must_name_stages_above(tmp_path: Path) -> None:
    cfg = compose_recipe("sft_full", "+scale=tiny", "stages.train.after=[evaluate]")
    with pytest.raises(ValueError, match=r"stages\.train\.after names \['evaluate'\].*prepare_sft"):
        plan.resolve(cfg, tmp_path)


def test_unset_values_are_named(tmp_path: Path) -> None:
    cfg = compose_recipe("sft_full", "+scale=tiny", "stages.average.steps=???")
    with pytest.raises(ValueError, match="steps"):
        plan.resolve(cfg, tmp_path)


def test_the_written_config_is_the_one_the_job_hashes(tmp_path: Path) -> None:
    stages = planned(tmp_path)
    plan.write_configs(list(stages.values()), redo=False)
    task = stages["generate"].tasks[0]
    loaded = OmegaConf.to_container(OmegaConf.load(task.config_path))
    assert isinstance(loaded, dict)
    assert config_hash({str(key): value for key, value in loaded.items()}) == task.config_hash


def test_another_config_is_refused_with_the_keys(tmp_path: Path) -> None:
    plan.write_configs(list(planned(tmp_path).values()), redo=False)
    before = (tmp_path / "generate" / "config.yaml").read_text()
    other = planned(tmp_path, "stages.generate.seed=9", "sampling.max_tokens=5")
    with pytest.raises(ValueError) as caught:
        plan.write_configs(list(other.values()), redo=False)
    message = str(caught.value)
    assert "seed: 0 -> 9" in message and "sampling.max_tokens: 96 -> 5" in message
    assert "run_name=" in message and "redo=true" in message
    assert (tmp_path / "generate" / "config.yaml").read_text() == before


def test_resources_may_change(tmp_path: Path) -> None:
    stages = planned(tmp_path)
    plan.write_configs(list(stages.values()), redo=False)
    task = stages["generate"].tasks[0]
    finish(task)
    more = planned(tmp_path, "stages.generate.resources.time=09:00:00")["generate"]
    plan.write_configs([more], redo=False)
    assert more.why_not_done() is None
    assert "09:00:00" in task.config_path.read_text()


def sharded(run_dir: Path, *words: str) -> plan.PlannedStage:
    return planned(run_dir, *(words or ["stages.generate.shards=2"]))["generate"]


def test_limits_of_servers_and_clients_may_change(tmp_path: Path) -> None:
    """A half-done synthesis goes on with another time-out, fewer requests at once, or more servers; not another window."""
    stage = sharded(tmp_path)
    plan.write_configs([stage], redo=False)
    for task in stage.tasks:
        finish(task)
    place, two = "stages.generate", "stages.generate.shards=2"
    limits = [f"{place}.client.timeout_s=7", "server.concurrency=3", "server.replicas=1", "server.startup_timeout_s=9"]
    changed = sharded(tmp_path, two, *limits)
    plan.write_configs([changed], redo=False)
    assert changed.why_not_done() is None
    with pytest.raises(ValueError, match="server.context_length: unset -> 512"):
        plan.write_configs([sharded(tmp_path, two, "+server.context_length=512")], redo=False)


def test_results_of_other_shards_are_refused_or_set_aside(tmp_path: Path) -> None:
    """Later stages read every folder below the stage's: none may be left of another number of shards."""
    two = sharded(tmp_path)
    plan.write_configs([two], redo=False)
    for task in two.tasks:
        (task.folder / "output.jsonl").touch()
    for words in (["stages.generate.shards=16"], ["stages.generate.shards=1"]):
        with pytest.raises(ValueError, match=r"has results of other tasks: shard_0, shard_1\. .*redo=true"):
            plan.write_configs([sharded(tmp_path, *words)], redo=False)
    plan.write_configs([sharded(tmp_path, "stages.generate.shards=16")], redo=True)
    assert [path.name for path in sorted((tmp_path / "generate").iterdir())] == [f"shard_{i:02d}" for i in range(16)]
    kept = sorted(path.name for path in (tmp_path / "generate.old1").iterdir())
    assert kept == ["shard_0", "shard_1"]


def test_redo_sets_results_aside(tmp_path: Path) -> None:
    stages = list(planned(tmp_path).values())
    folder = tmp_path / "generate"
    for number in (1, 2):
        plan.write_configs(stages, redo=False)
        (folder / "output.jsonl").write_text(str(number))
        plan.write_configs(stages, redo=True)
    assert [(tmp_path / f"generate.old{n}" / "output.jsonl").read_text() for n in (1, 2)] == ["1", "2"]
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_why_not_done(tmp_path: Path) -> None:
    stage = planned(tmp_path)["generate"]
    assert stage.why_not_done() == "not finished"
    plan.write_configs([stage], redo=False)
    finish(stage.tasks[0])
    assert stage.why_not_done() is None
    assert planned(tmp_path, "stages.generate.seed=9")["generate"].why_not_done() == "its config changed"


def test_selection(tmp_path: Path) -> None:
    stages = list(resolve_recipe("sft_full", "+scale=tiny", run_dir=tmp_path).values())
    names = lambda chosen: [stage.name for stage in chosen]  # noqa: E731
    assert names(plan.select(stages, ["train", "prepare_sft"], None)) == ["prepare_sft", "train"]
    assert names(plan.select(stages, [], "export")) == ["export", "evaluate", "report"]
    assert names(plan.select(stages, ["report"], "export")) == ["report"]
    assert plan.select(stages, [], None) == stages
    with pytest.raises(ValueError, match="no stage 'x'.*prepare_sft"):
        plan.select(stages, ["x"], None)


def test_a_left_out_stage_must_be_on_disk(tmp_path: Path) -> None:
    stages = list(resolve_recipe("sft_full", "+scale=tiny", run_dir=tmp_path).values())
    train = plan.select(stages, ["train"], None)
    with pytest.raises(ValueError, match="train needs prepare_sft"):
        plan.require_finished(stages, train)
    prepared = next(stage for stage in stages if stage.name == "prepare_sft").tasks[0]
    prepared.folder.mkdir(parents=True)
    finish(prepared)
    plan.require_finished(stages, train)


def test_a_stage_without_processes_has_a_main_one(tmp_path: Path) -> None:
    task = plan.Task("s", "", {"output_dir": str(tmp_path)}, SimpleNamespace())  # type: ignore[arg-type]
    assert [process.argv for process in task.processes] == [
        ["python", "-m", "recipes.run_stage", str(tmp_path / "config.yaml")]
    ]


def test_shards_of_a_stage_that_is_one_task_are_refused() -> None:
    cfg = compose_recipe("sft_full", "+scale=tiny", "stages.average.shards=2")
    with pytest.raises(ValueError, match=r"stages\.average\.shards=2, but average is one task"):
        plan.resolve(cfg, Path("runs/x"))
