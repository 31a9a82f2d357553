"""Every recipe at every scale composes, and says what was published."""

import json
from pathlib import Path

import numpy as np
import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from nemo_ext.megatron.data.batches import Batches
from nemo_ext.megatron.data.token_folder import PackedData
from nemo_ext.samples import held_out
from tests.composing import RECIPES, compose_recipe, resolve_recipe

SFT = ("sft_full", "sft_full_release", "sft_1m")


def variants(stage) -> list[str]:
    return [task.part for task in stage.tasks if task.part and not task.part.startswith("shard_")]


@pytest.mark.parametrize("scale", [(), ("+scale=tiny",)], ids=["full", "tiny"])
@pytest.mark.parametrize("name", RECIPES)
def test_composes_types_and_resolves(name: str, scale: tuple[str, ...]) -> None:
    above: list[str] = []
    for stage in resolve_recipe(name, *scale).values():
        assert set(stage.after) <= set(above)
        assert stage.uses and stage.tasks
        for task in {0: stage.tasks[0], -1: stage.tasks[-1]}.values():
            typed = task.typed()
            assert typed.name == stage.name and typed.uses == stage.uses
            assert "${" not in task.config and "???" not in task.config
            assert [process.service for process in task.processes].count(False) == 1
        above.append(stage.name)


@pytest.mark.parametrize("name", RECIPES)
def test_tiny_has_the_same_wiring(name: str) -> None:
    full, tiny = resolve_recipe(name), resolve_recipe(name, "+scale=tiny")
    shape = [[(s.name, s.uses, s.after, variants(s)) for s in stages.values()] for stages in (full, tiny)]
    assert shape[0] == shape[1]


@pytest.mark.parametrize("name", RECIPES)
def test_tiny_needs_no_gpu(name: str) -> None:
    assert {stage.resources.gpus for stage in resolve_recipe(name, "+scale=tiny").values()} == {0}


def config(recipe: str, stage: str):
    return resolve_recipe(recipe)[stage].tasks[0].typed()


@pytest.mark.parametrize("name", ["openmathinstruct2", *SFT])
def test_published_training_settings(name: str) -> None:
    train = config(name, "train")
    assert train.lr == {"openmathinstruct2": 5e-6, "sft_full": 5e-6}.get(name, 2e-5)
    assert (train.lr_decay_style, train.lr_warmup_iters) == ("constant", 0)
    assert (train.adam_beta1, train.adam_beta2, train.weight_decay) == (0.9, 0.98, 0.01)
    assert train.global_batch_size == 512
    assert (train.seq_length, train.tensor_model_parallel_size, train.precision) == (4096, 4, "bf16")
    assert train.train_iters == (1855 if name == "sft_1m" else 60000)
    assert train.clip_grad == 0.0


@pytest.mark.parametrize("name", ["openmathinstruct2", "sft_full", "sft_full_release"])
def test_six_checkpoints_are_averaged(name: str) -> None:
    stages = resolve_recipe(name)
    assert stages["average"].tasks[0].typed().steps == [10000, 20000, 30000, 40000, 50000, 60000]
    assert stages["train"].tasks[0].typed().keep_interval == 10000


def test_every_checkpoint_and_the_average_are_evaluated() -> None:
    evaluate = resolve_recipe("openmathinstruct2")["evaluate"]
    assert variants(evaluate) == ["base", *(f"checkpoint_{i}" for i in range(1, 7)), "average"]
    paths = {task.part: task.content["model"]["hf_path"] for task in evaluate.tasks}
    assert paths["average"].endswith("/average/average") and paths["checkpoint_3"].endswith("/export/checkpoint_3")
    assert paths["base"].endswith("Llama-3.1-8B")
    assert all(task.typed().sampling.temperature == 0.0 for task in evaluate.tasks)


def test_published_synthesis_settings() -> None:
    stages = {name: stage.tasks[0].typed() for name, stage in resolve_recipe("openmathinstruct2").items()}
    counts = {
        name: {s: each.num_samples for s, each in stages[name].by_source.items()}
        for name in ("solve_seeds", "write_problems", "solve_new")
    }
    assert counts == {
        "solve_seeds": {"math": 512, "gsm8k": 64},
        "write_problems": {"math": 80, "gsm8k": 10},
        "solve_new": {"augmented_math": 32, "augmented_gsm8k": 32},
    }
    assert {name: stages[name].sampling.temperature for name in counts} == {
        "solve_seeds": 1.0,
        "write_problems": 1.0,
        "solve_new": 0.7,
    }
    assert {stages[name].sampling.top_p for name in counts} == {0.95}
    assert {stages[name].sampling.max_tokens for name in counts} == {2048}
    assert (stages["decontaminate"].judge, stages["decontaminate"].top_k) == ("llm", 5)
    assert (stages["downsample"].num_rows, stages["downsample"].method) == (14_000_000, "fair")
    assert stages["vote"].mode == "exact"
    # one problem's samples must differ, and no two stages may ask alike
    assert len({stages[name].seed for name in counts}) == 3


def test_training_and_evaluation_use_one_prompt() -> None:
    for name in ("openmathinstruct2", *SFT):
        stages = resolve_recipe(name)
        assert stages["prepare_sft"].tasks[0].typed().prompt == stages["evaluate"].tasks[0].typed().prompt


def test_the_report_compares_with_keys_that_exist() -> None:
    """A paper value with a key no stage has would be reported as a difference for ever."""
    for name in ("openmathinstruct2", *SFT):
        stages = resolve_recipe(name)
        for published in stages["report"].tasks[0].typed().paper:
            stage, _, key = published.key.partition(".")
            assert OmegaConf.select(OmegaConf.create(stages[stage].tasks[0].content), key) is not None, published.key


def test_published_values_are_met_in_full() -> None:
    stages = resolve_recipe("openmathinstruct2")
    for published in stages["report"].tasks[0].typed().paper:
        stage, _, key = published.key.partition(".")
        assert OmegaConf.select(OmegaConf.create(stages[stage].tasks[0].content), key) == published.value, (
            published.key
        )


@pytest.mark.parametrize("words", [("sizes.lr=3.0e-4", "+scale=tiny"), ("+scale=tiny", "sizes.lr=3.0e-4")])
def test_the_command_line_beats_recipe_and_scale(words: tuple[str, ...]) -> None:
    assert resolve_recipe("sft_full", *words)["train"].tasks[0].typed().lr == 3e-4
    assert resolve_recipe("sft_full", *words, "stages.train.lr=7.0e-4")["train"].tasks[0].typed().lr == 7e-4


def test_scale_beats_recipe() -> None:
    assert resolve_recipe("sft_1m", "+scale=tiny")["train"].tasks[0].typed().train_iters == 240


def test_a_misspelt_stage_key_is_refused() -> None:
    with pytest.raises(HydraException, match="learning_rate"):
        compose_recipe("sft_full", "stages.train.learning_rate=1")


class CheapRandom:
    """Stands for random.Random: seeding a million of those takes most of a minute."""

    def __init__(self, key: str) -> None:
        self.number = int(key.partition("/")[2]) * 2654435761

    def randrange(self, end: int) -> int:
        return self.number % end


def test_sft_1m_makes_1855_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The NeMo-RL guide: 1,000,000 rows, 5 % held out, 512 a step."""
    stages = resolve_recipe("sft_1m")
    train = stages["train"].tasks[0].typed()
    monkeypatch.setattr(held_out.random, "Random", CheapRandom)
    prepare = stages["prepare_sft"].tasks[0].typed()
    chosen = held_out.HeldOut(prepare.validation_fraction, prepare.seed)
    assert sum(index not in chosen for index in range(1_000_000)) == 950_000
    batches = Batches(untokenised(tmp_path, 950_000), train.global_batch_size, train.pack_length, train.seed)
    assert batches.steps_per_epoch == train.train_iters == 1855


def untokenised(folder: Path, count: int) -> PackedData:
    """A data folder of `count` samples that were never tokenised."""
    np.save(folder / "offsets.npy", np.arange(count + 1, dtype=np.int64) * 100)
    (folder / "data.json").write_text(json.dumps({"num_samples": count}))
    for name, size in (("tokens.bin", 4), ("loss_mask.bin", 1)):
        with (folder / name).open("wb") as handle:
            handle.truncate(count * 100 * size)  # a hole, which takes no disk
    return PackedData.open(folder)
