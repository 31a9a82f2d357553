"""The report's points of an ablation: scores over all benchmarks, rows as the axis, models that are missing left out."""

import json
from pathlib import Path
from typing import Any

from nemo_ext.report.run_sections import warnings
from recipes.stages.release.report import Ablation, Point, ablation, unequal_rows


def _stage(root: Path, name: str, **manifest: Any) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    base: dict[str, Any] = {
        "uses": "downsample",
        "prompts": {},
        "models": {},
        "figures": {},
        "rows_out": 0,
        "inputs": [],
    }
    (folder / "manifest.json").write_text(json.dumps(base | manifest))
    return folder


def _scored(correct: int) -> dict[str, Any]:
    return {"correct": correct, "total": 10, "accuracy": correct / 10, "low": 0.0, "high": 1.0}


FOUND = {
    "small": {"benchmarks": {"a": _scored(3), "b": _scored(7)}},
    "large": {"benchmarks": {"a": _scored(9), "b": _scored(9)}},
}


def test_points(tmp_path: Path) -> None:
    finished = {
        f"subset/{name}": _stage(tmp_path, f"subset/{name}", rows_out=n) for name, n in (("small", 50), ("large", 900))
    }
    asked = Ablation(
        x="rows", rows_of="subset", points=[Point(model="small"), Point(model="large"), Point(model="gone")]
    )
    shown = ablation(asked, finished, FOUND)
    assert shown is not None
    assert [(p["model"], p["x"], p["correct"], p["total"]) for p in shown["points"]] == [
        ("small", 50, 10, 20),
        ("large", 900, 18, 20),
    ]
    assert 0.29 < shown["points"][0]["low"] < 0.5 < shown["points"][0]["high"] < 0.71
    named = ablation(Ablation(x="rate", points=[Point(model="large", x=40, published=44.5)]), finished, FOUND)
    assert named is not None and (named["points"][0]["x"], named["points"][0]["published"]) == (40, 44.5)
    assert ablation(None, finished, FOUND) is None
    assert ablation(Ablation(x="rows", points=[Point(model="gone")]), finished, FOUND) is None


def test_a_series_for_each_benchmark(tmp_path: Path) -> None:
    points = [Point(model=model, benchmark=name, series=name) for name in ("a", "b", "gone") for model in FOUND]
    shown = ablation(Ablation(x="rows", points=points), {}, FOUND)
    assert shown is not None and shown["by_benchmark"]
    assert [(p["model"], p["series"], p["correct"], p["total"], p["problems"]) for p in shown["points"]] == [
        ("small", "a", 3, 10, 10),
        ("large", "a", 9, 10, 10),
        ("small", "b", 7, 10, 10),
        ("large", "b", 9, 10, 10),
    ]


def test_students_of_different_numbers_of_rows_are_named(tmp_path: Path) -> None:
    finished = {
        f"prepare_sft/{name}": _stage(tmp_path, f"prepare_sft/{name}", uses="prepare_sft", rows_out=n)
        for name, n in (("small", 498), ("large", 1500))
    }
    asked = Ablation(x="choice", points=[Point(model="small"), Point(model="large")])
    shown = ablation(asked, finished, FOUND)
    assert shown is not None and [p["rows"] for p in shown["points"]] == [498, 1500]
    assert unequal_rows(asked, shown) == [
        "The students were trained on different numbers of rows: small 498, large 1,500."
    ]
    sizes = Ablation(x="rows", rows_of="prepare_sft", points=asked.points)
    assert unequal_rows(sizes, ablation(sizes, finished, FOUND)) == [], "it is what is varied"
    finished["prepare_sft/large"] = _stage(tmp_path / "again", "large", uses="prepare_sft", rows_out=498)
    assert unequal_rows(asked, ablation(asked, finished, FOUND)) == []
    assert unequal_rows(None, None) == []


def test_a_tiny_run_says_so_whatever_its_models_are_called(tmp_path: Path) -> None:
    finished = {"prepare_sft": _stage(tmp_path, "prepare_sft", models={"tiny_base": "x"})}
    assert any("tiny scale" in note for note in warnings(finished, {}))
    assert not warnings({"prepare_sft": _stage(tmp_path, "p2", models={"llama31_8b": "x"})}, {})


def test_another_prompt_matters_for_what_was_trained_here_and_not_for_the_teacher(tmp_path: Path) -> None:
    finished = {
        "sft": _stage(tmp_path, "sft", uses="prepare_sft", prompts={"a": "1"}),
        "average": _stage(tmp_path, "average", uses="average", models={"average": "x"}),
        "teacher": _stage(tmp_path, "teacher", uses="evaluate", models={"big": "y"}, prompts={"b": "2"}),
        "student": _stage(tmp_path, "student", uses="evaluate", models={"average": "x"}, prompts={"a": "1"}),
    }
    assert warnings(finished, {}) == []
    finished["student"] = _stage(tmp_path, "other", uses="evaluate", models={"average": "x"}, prompts={"b": "2"})
    assert warnings(finished, {}) == [
        "The prompt of the evaluation (b) is not the one the model was fine-tuned with (a)."
    ]
    finished["student"] = _stage(tmp_path, "same", uses="evaluate", models={"average": "x"}, prompts={"a": "2"})
    assert warnings(finished, {})[0].endswith("fine-tuned with (a): they have one name and other texts.")
    finished["more"] = _stage(tmp_path, "more", uses="prepare_sft", prompts={"c": "2"})
    assert warnings(finished, {}) == [], "it is one of those that the data was prepared with"


def test_the_prompt_of_a_training_in_another_run_is_looked_up(tmp_path: Path) -> None:
    """As evaluate_checkpoint's is: export read a checkpoint, whose training says which data, whose manifest has the prompt."""
    data = _stage(tmp_path / "earlier", "prepare_sft", uses="prepare_sft", prompts={"a": "1"})
    checkpoint = tmp_path / "earlier" / "train" / "checkpoints" / "step_0000100" / "metadata.json"
    checkpoint.parent.mkdir(parents=True)
    (tmp_path / "earlier" / "train" / "config.yaml").write_text(f"data: {data}\n")
    exported = {"uses": "export_hf", "models": {"m": "x"}, "inputs": [{"path": str(checkpoint)}]}
    finished = {"export": _stage(tmp_path, "export", **exported)}
    for prompt, notes in (("1", 0), ("2", 1)):
        finished["evaluate"] = _stage(tmp_path, prompt, uses="evaluate", models={"m": "x"}, prompts={"a": prompt})
        assert len(warnings(finished, {})) == notes
