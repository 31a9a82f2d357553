"""Every other recipe at +scale=tiny, with still fewer steps: the real thing end to end. (test_pipeline.py has the main one.)"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.composing import RECIPES
from tests.e2e import hostile_world

FEW = {
    "sft_full": [
        "sizes.train_iters=4", "sizes.num_checkpoints=2", "sizes.global_batch_size=8", "sizes.answer_tokens=8", "benchmarks=[toy_math]",
    ],
    "toy_models": [
        "sizes.teacher_rows=400", "sizes.base_rows=400", "sizes.teacher_iters=3", "sizes.base_iters=3", "sizes.warmup_iters=1",
    ],
    "toy_coder": ["sizes.rows=400", "sizes.iters=3", "sizes.warmup_iters=1"],
}  # fmt: skip
# those with a test of their own: test_pipeline.py, test_evaluating_while_training.py, test_generate_alone.py
SEPARATE = {
    "openmathinstruct2", "evaluate_checkpoint", "generate",
    # curation on files: test_grade_alone.py, test_filter_alone.py, test_decontaminate_alone.py, test_blending_alone.py
    "grade", "judge_answers", "vote", "filter", "deduplicate", "decontaminate", "downsample", "match_coverage", "inject_noise",
    "publish_data", "select_code", "parse_replies", "export_scores", "score_rewards", "choose_answers", "rescore", "compare",
    "explore",  # test_explore_alone.py
    "merge",  # test_merge_alone.py
    # test_ablations.py
    "ablation_format", "ablation_teacher", "ablation_noise", "ablation_diversity", "ablation_scale",
}  # fmt: skip
# those with another learning rate or data set than sft_full, and what makes the models of tiny scale
SOAK = {"sft_full_release", "sft_1m", "toy_models", "toy_coder", "openmathinstruct1_sft"}
# ablations alike: ablation_fair stands for those that choose from rows, and test_ablations.py has what they choose
SOAK |= {"ablation_prompts", "ablation_select_code", "ablation_code_size", "ablation_code_text"}
FEW["sc_tir"] = ["benchmarks=[toy_math]", "sizes.width=2", "sizes.answer_tokens=24"]
FEW["sft_full_release"] = FEW["sft_70b"] = FEW["sft_full"]
FEW["openmathinstruct1"] = [
    "source.math.path=toy://seeds/math?num_rows=12&large=1", "source.gsm8k.path=toy://seeds/gsm8k?num_rows=12&large=1",
    "sizes.rows=64", "sizes.epochs=1", "sizes.global_batch_size=8", "benchmarks=[toy_math_large]", "sizes.answer_tokens=24",
    "sizes.majority_samples=2",
]  # fmt: skip
FEW["openmathinstruct1_sft"] = [
    "sizes.rows=64", "sizes.epochs=1", "sizes.global_batch_size=8", "sizes.answer_tokens=24", "benchmarks=[toy_math]",
    "sizes.majority_samples=2",
]  # fmt: skip
_STUDENTS = [
    "sizes.rows=32", "sizes.epochs=1", "sizes.ablation.global_batch_size=8", "benchmarks=[toy_math_large]", "sizes.answer_tokens=24",
]  # fmt: skip
_TRACES = [*_STUDENTS, "data=toy://traces?num_problems=40&num_samples=4"]
FEW["ablation_fair"] = _TRACES
FEW["ablation_select_code"] = [*_TRACES, "drawn=toy://traces?num_problems=40&num_samples=4"]
FEW["ablation_prompts"] = [*_TRACES, "sizes.rows_per_source=16"]
FEW["ablation_code_size"] = [
    *_TRACES, *(f"sizes.by_name.rows_{name}={rows}" for name, rows in (("128k", 16), ("256k", 32), ("512k", 64))),
]  # fmt: skip
FEW["ablation_code_text"] = [
    *_STUDENTS, "source.math.path=toy://seeds/math?num_rows=32&large=1", "source.gsm8k.path=toy://seeds/gsm8k?num_rows=32&large=1",
]  # fmt: skip
FEW["sft_1m"] = [*FEW["sft_full"], "sizes.num_checkpoints=1"]


def test_no_recipe_is_forgotten():
    assert set(RECIPES) == set(FEW) | SEPARATE


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "recipe",
    [pytest.param(name, marks=pytest.mark.soak) if name in SOAK else name for name in sorted(FEW)],
)
def test_recipe_runs(recipe: str, finish: Callable[..., str], tmp_path: Path):
    as_published = hostile_world.words(tmp_path) if recipe == "sft_full" else []
    finish(f"+recipe={recipe}", "+scale=tiny", *FEW[recipe], *as_published, timeout=280)
    run = tmp_path / f"{recipe}_tiny"
    stages = {path.parent for pattern in ("*", "*/*") for path in run.glob(f"{pattern}/config.yaml")}
    assert stages
    assert all((stage / "_DONE").is_file() for stage in stages)
    if not recipe.startswith("toy_"):
        assert (run / "report.html").is_file()
    if as_published:
        prepared = json.loads((run / "prepare_sft" / "manifest.json").read_text())
        assert prepared["figures"]["layouts"] == hostile_world.LAYOUTS and prepared["dropped"] == hostile_world.DROPPED
        assert prepared["figures"]["end_tokens_stripped"] == hostile_world.EACH
