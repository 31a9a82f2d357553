"""Stages behind a file, those that others need first."""

import json
from pathlib import Path

from nemo_ext.records.lineage import upstream


def _stage(root: Path, name: str, inputs: list[Path], rows: int = 1) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    manifest = {
        "stage": name.split("/")[0], "uses": "x", "rows_in": rows, "rows_out": rows, "dropped": {"bad": 1}, "models": {},
        "prompts": {}, "seeds": {}, "figures": {}, "code_version": "c", "inputs": [{"path": str(path)} for path in inputs],
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder / "output.jsonl"


def test_every_stage_once_and_after_what_it_needs(tmp_path: Path) -> None:
    seeds = tmp_path / "own" / "seeds.jsonl"
    prepare = _stage(tmp_path, "prepare", [seeds])
    tests = _stage(tmp_path, "tests", [])
    shards = [_stage(tmp_path, f"solve/shard_{n}", [prepare], rows=5) for n in range(3)]
    clean = _stage(tmp_path, "clean", [prepare, *shards, tests])
    stages, outside = upstream([clean, seeds])
    names = [stage.name for stage in stages]
    assert sorted(names) == ["clean", "prepare", "solve", "tests"] and names[-1] == "clean"
    assert names.index("prepare") < names.index("solve")
    solve = stages[names.index("solve")]
    assert (solve.rows_in, solve.tasks, solve.dropped) == (15, 3, {"bad": 3})
    assert outside == [{"path": str(seeds)}]
    assert upstream([seeds]) == ([], [])
