"""OpenMathInstruct-1's recipe: what it asks for is what was published, and what it adds at tiny scale."""

from pathlib import Path
from typing import Any

import pytest

from launchers.planning import recipe_files
from nemo_ext.curation.coverage.table import percent
from tests.composing import compose_recipe, resolve_recipe

SUBJECTS = {
    "Algebra", "Counting & Probability", "Geometry", "Intermediate Algebra", "Number Theory", "Prealgebra", "Precalculus",
}  # fmt: skip


def config(stage: str, *words: str) -> Any:
    return resolve_recipe("openmathinstruct1", *words)[stage].tasks[0].typed()


def test_the_published_numbers_of_samples() -> None:
    """arXiv 2402.10176, appendix B: GSM8K 128 + 128; MATH 224, 224 masked and 32 for each subject's prompt."""
    strategies = config("solve").strategies
    samples = {
        name: {value: each.num_samples for value, each in strategy.asked.items()}
        for name, strategy in strategies.items()
    }
    assert samples == {
        "default": {"math": 224, "gsm8k": 128},
        "masked": {"math": 224, "gsm8k": 128},
        "subject": dict.fromkeys(SUBJECTS, 32),
    }
    prompts = {each.prompt.name for each in strategies["subject"].asked.values()}
    assert len(prompts) == len(SUBJECTS) and all(
        len(each.prompt.few_shot) == 5 for each in strategies["subject"].asked.values()
    )


def test_the_published_sampling_and_tools() -> None:
    solve, mask = config("solve"), config("mask")
    assert (solve.sampling.temperature, solve.sampling.top_p, solve.sampling.max_tokens) == (1.0, 0.95, 512)
    assert (solve.tools.max_executions, solve.tools.on_error, solve.tools.max_total_tokens) == (3, "stop", 4096)
    assert {each.num_samples for each in mask.by_source.values()} == {8}
    evaluate = config("evaluate")
    assert (evaluate.tools.max_executions, evaluate.tools.on_error) == (6, "go_on")


def test_the_published_selection() -> None:
    select, downsample = config("select_code"), config("downsample")
    assert (select.mode, select.sources) == ("any_code", ["math"])
    assert (downsample.method, downsample.max_per_source, downsample.num_rows) == ("fair", {"gsm8k": 512_000}, None)


def test_every_stage_that_drops_samples_is_in_the_account_of_them() -> None:
    stages = resolve_recipe("openmathinstruct1")
    coverage = config("coverage")
    chain = [coverage.samples, *coverage.stages]
    read = [*coverage.stages, config("prepare_sft").input]
    assert [str(stages[Path(folder).name].tasks[0].typed().input) for folder in read[:-1]] == chain[:-1]
    assert read[-1] == chain[-1], "what is trained on is what is kept at the end"
    assert set(coverage.strategies) == set(config("solve").strategies)


def test_published_coverage_is_of_this_recipe() -> None:
    """arXiv 2402.10176: masked prompts of a subject are the one way that it asks and this recipe does not."""
    ways, published = config("solve").strategies, config("report").coverage
    assert {each.source for each in published.solutions} == {"math", "gsm8k"} == set(ways["default"].asked)
    unknown = {name for each in published.solutions for name in each.strategies} - ways.keys()
    assert unknown == {"masked by subject"}
    assert {(each.source, each.coverage) for each in published.solutions if not each.strategies} == {
        ("math", percent(6978, 7500)), ("gsm8k", percent(7469, 7473)),
    }  # fmt: skip


@pytest.mark.parametrize("recipe", ["openmathinstruct1", "openmathinstruct1_sft"])
def test_the_average_is_scored_greedily_and_by_a_majority_of_50(recipe: str) -> None:
    evaluated = {task.part: task.typed() for task in resolve_recipe(recipe)["evaluate"].tasks}
    assert {name: (each.num_samples, each.sampling.temperature) for name, each in evaluated.items()} == {
        "base": (1, 0.0), "average": (1, 0.0), "average_sampled": (50, 0.7),
    }  # fmt: skip
    assert evaluated["average"].model.hf_path == evaluated["average_sampled"].model.hf_path
    assert all(each.use_tools and each.tools.max_executions == 6 for each in evaluated.values())
    tiny = {task.part: task.typed() for task in resolve_recipe(recipe, "+scale=tiny")["evaluate"].tasks}
    assert tiny["average_sampled"].num_samples == 4


def test_at_tiny_scale_a_coder_writes_and_learns() -> None:
    cfg = compose_recipe("openmathinstruct1", "+scale=tiny")
    assert (cfg.teacher.name, cfg.student.name) == ("tiny_coder", "tiny_coder")
    assert list(cfg.benchmarks) == ["toy_gsm8k_large", "toy_math_large"]
    assert compose_recipe("openmathinstruct1").teacher.name == "mixtral_8x7b"


@pytest.mark.parametrize(
    ("word", "kept"),
    [
        ("model@teacher=tiny_teacher", "model@student=tiny_coder"),
        ("benchmarks=[toy_math]", "model@teacher=tiny_coder"),
    ],
)
def test_what_the_command_line_says_comes_first(word: str, kept: str) -> None:
    words = recipe_files.named(["+recipe=openmathinstruct1", "+scale=tiny", word])
    assert [each for each in words if each.partition("=")[0] == word.partition("=")[0]] == [word] and kept in words
    assert kept not in recipe_files.named(["+recipe=openmathinstruct1", word])
