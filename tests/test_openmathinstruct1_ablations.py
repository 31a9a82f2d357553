"""The ablations of OpenMathInstruct-1: students that differ in one thing, as many rows and steps for each, published values."""

from pathlib import Path
from typing import Any

import pytest

from nemo_ext.curation.choosing.row_keys import read_keys
from nemo_ext.rows.row import dumps
from recipes.stage import row_files
from recipes.stages.curation import downsample, match_coverage
from tests.composing import resolve_recipe

ON_ROWS = ("ablation_prompts", "ablation_fair", "ablation_select_code", "ablation_code_size")
PUBLISHED = {  # arXiv 2402.10176: GSM8K, MATH
    "ablation_prompts": {"default": (73.8, 36.9), "masked": (77.7, 37.4), "subject": (None, None)},
    "ablation_fair": {"fair": (75.3, 37.0), "naive": (74.3, 35.0)},
    "ablation_select_code": {"default": (None, 37.4), "majority_code": (None, 39.8), "any_code": (None, 39.4)},
    "ablation_code_size": {"rows_128k": (75.3, 37.0), "rows_256k": (79.0, 38.6), "rows_512k": (81.0, 41.6)},
}


def configs(recipe: str, stage: str, *words: str) -> dict[str, Any]:
    """Variant -> its config; {"": the config} of a stage without variants."""
    tasks = [task.typed() for task in resolve_recipe(recipe, *words)[stage].tasks]
    return {each.output_dir.rpartition(f"{stage}/")[2] if len(tasks) > 1 else "": each for each in tasks}


@pytest.mark.parametrize("recipe", ON_ROWS)
def test_published_values(recipe: str) -> None:
    (report,) = configs(recipe, "report").values()
    found = {name: [None, None] for name in PUBLISHED[recipe]}
    for point in report.ablation.points:
        found[point.model][["gsm8k", "math"].index(point.benchmark)] = point.published
    assert {name: tuple(values) for name, values in found.items()} == PUBLISHED[recipe]
    assert "2402.10176" in report.ablation.source


@pytest.mark.parametrize("recipe", ON_ROWS)
@pytest.mark.parametrize("scale", [(), ("+scale=tiny",)])
def test_students_have_as_many_rows_and_steps_or_are_refused(recipe: str, scale: tuple[str, ...]) -> None:
    subsets, trains = configs(recipe, "subset", *scale), configs(recipe, "train", *scale)
    assert set(subsets) == set(trains) == set(configs(recipe, "evaluate", *scale)) == set(PUBLISHED[recipe])
    assert all(each.refuse_fewer and each.only_correct for each in subsets.values())
    rows = {name: each.num_rows for name, each in subsets.items()}
    epochs = {name: trains[name].train_iters * trains[name].global_batch_size / rows[name] for name in rows}
    tiny = 6 if recipe in ("ablation_fair", "ablation_select_code") else 3
    assert all(count == pytest.approx(tiny if scale else 4, rel=0.05) for count in epochs.values())
    assert len(set(rows.values())) == (3 if recipe == "ablation_code_size" else 1)
    if not scale:
        assert set(rows.values()) == ({128_000, 256_000, 512_000} if len(set(rows.values())) > 1 else {128_000})


@pytest.mark.parametrize("recipe", [*ON_ROWS, "ablation_code_text"])
def test_students_are_trained_as_mistral_was_and_have_python(recipe: str) -> None:
    for train in configs(recipe, "train").values():
        assert (train.model.name, train.lr, train.global_batch_size) == ("mistral_7b_v01", 1e-6, 128)
        assert (train.hidden_dropout, train.weight_decay, train.adam_beta2) == (0.1, 0.01, 0.98)
    python = {name: each.use_tools for name, each in configs(recipe, "evaluate").items()}
    assert [name for name, tools in python.items() if not tools] == [name for name in python if "in_words" in name]
    assert {each.tools.max_executions for each in configs(recipe, "evaluate").values()} == {6}


def test_the_sizes_of_ablation_scale_are_not_all_the_same_rows_of_a_small_file() -> None:
    refused = {name: each.refuse_fewer for name, each in configs("ablation_scale", "subset").items()}
    assert refused == {"train_1M": True, "train_2M": True, "train_5M": True, "train": False}


def test_what_is_varied() -> None:
    assert {name: each.method for name, each in configs("ablation_fair", "subset").items()} == {
        "fair": "fair",
        "naive": "random",
    }
    only = {name: each.only for name, each in configs("ablation_prompts", "subset").items()}
    assert only["default"] == [{"strategy": "default"}] and only["masked"] == [{"strategy": "masked"}]
    assert only["subject"] == [{"strategy": "subject"}, {"strategy": "default", "problem_source": "gsm8k"}]
    modes = {name: each.mode for name, each in configs("ablation_select_code", "select_code").items()}
    assert modes == {"majority_code": "majority_code", "any_code": "any_code"}
    inputs = {
        name: Path(each.input).relative_to(Path("runs/x").absolute()).as_posix()
        for name, each in configs("ablation_select_code", "subset").items()
    }
    assert inputs == {
        "default": "math",
        "majority_code": "select_code/majority_code",
        "any_code": "select_code/any_code",
    }


@pytest.mark.parametrize("scale", [(), ("+scale=tiny",)])
def test_code_and_words_differ_in_nothing_but_the_solutions_and_python(scale: tuple[str, ...]) -> None:
    subsets = configs("ablation_code_text", "subset", *scale)
    assert {name: each.keep for name, each in subsets.items()} == {"with_code": "first", "in_words": "second"}
    assert len({(each.first, each.second, each.num_rows, each.seed) for each in subsets.values()}) == 1
    assert all(isinstance(each, match_coverage.Config) for each in subsets.values())
    with_code, in_words = (configs("ablation_code_text", "train", *scale)[name] for name in ("with_code", "in_words"))
    assert vars(with_code) | {"data": None, "output_dir": None} == vars(in_words) | {"data": None, "output_dir": None}
    evaluations = configs("ablation_code_text", "evaluate", *scale)
    assert set(evaluations) == {"base_in_words", "base_with_code", "in_words", "with_code"}
    base = {evaluations[f"base_{name}"].model.hf_path for name in ("in_words", "with_code")}
    assert base == {with_code.model.hf_path}
    assert {(each.sampling.temperature, each.prompt.name) for each in evaluations.values()} == {(0.0, "generic_math")}


def test_the_released_rows_tell_their_strategy_under_another_name(tmp_path: Path) -> None:
    released = [
        {
            "question": f"What is {number}?", "generated_solution": f"\\boxed{{{number}}}", "is_correct": True, "dataset": "math",
            "expected_answer": str(number), "generation_type": f"{kind}_reference_solution",
        }
        for number in range(4)
        for kind in ("without", "masked")
    ]  # fmt: skip
    file = tmp_path / "correct.jsonl"
    file.write_bytes(b"".join(dumps(row) + b"\n" for row in released))
    words = [
        f"data={file}",
        "columns={problem_source: dataset}",
        "~stages.subset.variants.subject",
        "stages.subset.variants.masked.only=[{generation_type: masked_reference_solution}]",
    ]
    masked = configs("ablation_prompts", "subset", *words)["masked"]
    assert isinstance(masked, downsample.Config)
    keys = read_keys(row_files(masked, masked.input), 1, correct=True, only=masked.only)
    assert keys.fits.tolist() == [-1, 0] * 4 and keys.source_names == ["math"] and keys.correct.all()
    comment = (Path(__file__).parents[1] / "conf/recipe/ablation/ablation_prompts.yaml").read_text()
    assert all(f"'{word}'" in comment for word in words[1:])
