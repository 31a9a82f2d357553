"""The report's points of an ablation: scores over all benchmarks, rows as the axis, models that are missing left out."""

import json
from pathlib import Path
from typing import Any

from nemo_ext.report.run_sections import warnings
from recipes.stages.report import Ablation, Point, ablation


def _stage(root: Path, name: str, **manifest: Any) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    base: dict[str, Any] = {"uses": "downsample", "prompts": {}, "models": {}, "figures": {}, "rows_out": 0}
    (folder / "manifest.json").write_text(json.dumps(base | manifest))
    return folder


FOUND = {
    "small": {"benchmarks": {"a": {"correct": 3, "total": 10}, "b": {"correct": 7, "total": 10}}},
    "large": {"benchmarks": {"a": {"correct": 9, "total": 10}, "b": {"correct": 9, "total": 10}}},
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


def test_a_tiny_run_says_so_whatever_its_models_are_called(tmp_path: Path) -> None:
    finished = {"prepare_sft": _stage(tmp_path, "prepare_sft", models={"tiny_base": "x"})}
    assert any("tiny scale" in note for note in warnings(finished, {}))
    assert not warnings({"prepare_sft": _stage(tmp_path, "p2", models={"llama31_8b": "x"})}, {})
