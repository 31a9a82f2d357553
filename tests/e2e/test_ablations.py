"""The ablations at +scale=tiny: the sets they compare, for real, and one of them through to its figure."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.conftest import lines

Finish = Callable[..., str]
PROBLEMS = "source.math.path=toy://seeds/math?num_rows=60"
ONE_POOL, TWO_POOLS = ["sizes.solutions=4", PROBLEMS], ["sizes.pool_solutions=3", PROBLEMS]


def _subsets(run: Path) -> dict[str, list[dict[str, Any]]]:
    return {folder.name: lines(folder / "output.jsonl") for folder in (run / "subset").iterdir()}


def _finished(run: Path) -> set[str]:
    return {str(path.parent.relative_to(run)) for path in run.rglob("_DONE")}


@pytest.mark.timeout(400)
def test_noise(finish: Finish, tmp_path: Path) -> None:
    only = "only=[prepare_problems,solve,grade,subset]"
    finish("+recipe=ablation_noise", "+scale=tiny", *ONE_POOL, "sizes.noise_rows=50", only)
    sets = _subsets(tmp_path / "ablation_noise_tiny")
    noisy = {name: sum("noise" in row for row in rows) for name, rows in sets.items()}
    assert {len(rows) for rows in sets.values()} == {50} and noisy.pop("clean") == 0
    assert noisy == {name: 50 * int(name.rsplit("_", 1)[1]) // 100 for name in noisy} and len(noisy) == 8


@pytest.mark.timeout(400)
def test_diversity(finish: Finish, tmp_path: Path) -> None:
    sizes = [
        "sizes.diversity_rows=24",
        "sizes.problems_1k=8",
        "sizes.problems_2k=12",
        "sizes.problems_4k=20",
        "sizes.problems_6500=24",
    ]
    only = "only=[prepare_problems,solve,grade,subset]"
    finish("+recipe=ablation_diversity", "+scale=tiny", *ONE_POOL, *sizes, only)
    sets = _subsets(tmp_path / "ablation_diversity_tiny")
    problems = {name: len({row["problem"] for row in rows}) for name, rows in sets.items()}
    assert problems == {"problems_1k": 8, "problems_2k": 12, "problems_4k": 20, "problems_6500": 24}
    assert {len(rows) for rows in sets.values()} == {24} and all(
        row["is_correct"] for rows in sets.values() for row in rows
    )


@pytest.mark.timeout(400)
def test_prompts(finish: Finish, tmp_path: Path) -> None:
    finish("+recipe=ablation_prompts", "+scale=tiny", "sizes.rows=200", "sizes.rows_per_source=100", "only=[subset]")
    sets = _subsets(tmp_path / "ablation_prompts_tiny")
    kinds = {
        name: Counter((row["problem_source"], row["strategy"]) for row in rows if row["is_correct"])
        for name, rows in sets.items()
    }
    assert kinds == {
        "default": {("gsm8k", "default"): 100, ("math", "default"): 100},
        "masked": {("gsm8k", "masked"): 100, ("math", "masked"): 100},
        "subject": {("gsm8k", "default"): 100, ("math", "subject"): 100},
    }


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_code_selection(finish: Finish, tmp_path: Path) -> None:
    finish("+recipe=ablation_select_code", "+scale=tiny", "sizes.rows=900", "only=[math,drawn,select_code,subset]")
    sets = _subsets(tmp_path / "ablation_select_code_tiny")
    words = {name: sum("<llm-code>" not in row["generated_solution"] for row in rows) for name, rows in sets.items()}
    assert {len(rows) for rows in sets.values()} == {900}
    assert {row["problem_source"] for rows in sets.values() for row in rows} == {"math"}
    assert words["default"] > 90 and words["default"] > words["majority_code"] > words["any_code"] > 0


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_too_few_rows_for_all_students_are_refused(finish: Finish, tmp_path: Path) -> None:
    few = "data=toy://traces?num_problems=20&num_samples=3"
    said = finish("+recipe=ablation_fair", "+scale=tiny", few, "only=[subset]", code=1)
    assert "fewer than num_rows=1,200, which sets that are compared must all have" in " ".join(said.split())


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("recipe", ["ablation_format", "ablation_teacher"])
def test_pools_match(finish: Finish, tmp_path: Path, recipe: str) -> None:
    stages = "prepare_problems,solve_first,solve_second,grade_first,grade_second,subset"
    finish(f"+recipe={recipe}", "+scale=tiny", *TWO_POOLS, "sizes.matched_rows=40", f"only=[{stages}]")
    first, second = _subsets(tmp_path / f"{recipe}_tiny").values()
    assert Counter(row["problem"] for row in first) == Counter(row["problem"] for row in second) and len(first) == 40
    assert {row["generation"] for row in first} != {row["generation"] for row in second}


@pytest.mark.timeout(400)
def test_scale_through_to_its_figure(finish: Finish, tmp_path: Path) -> None:
    sizes = ["sizes.rows.train_1M=40", "sizes.iters.train_1M=2", "sizes.rows.train_2M=90", "sizes.iters.train_2M=4"]
    fewer = [f"~{key}.{name}" for name in ("train_5M", "train") for key in _VARIANTS]
    few = [
        "sizes.ablation.global_batch_size=4",
        "sizes.answer_tokens=8",
        "benchmarks=[toy_math]",
    ]
    finish("+recipe=ablation_scale", "+scale=tiny", *sizes, *fewer, *few, timeout=280)
    run = tmp_path / "ablation_scale_tiny"
    assert {
        f"{stage}/{name}" for stage in ("subset", "train", "average", "evaluate") for name in ("train_1M", "train_2M")
    } < _finished(run)
    small, large = (
        {row["problem"] for row in rows} for rows in (_subsets(run)["train_1M"], _subsets(run)["train_2M"])
    )
    assert small < large and len(large) == 90
    page = (run / "report.html").read_text()
    assert "Size of the data set" in page and '<section id="ablation">' in page and ">90</td>" in page
    assert json.loads((run / "evaluate" / "train_2M" / "scores.json").read_text())["model"] == "train_2M"


_VARIANTS = ("stages.subset.variants", "stages.train.variants", "stages.average.variants")
