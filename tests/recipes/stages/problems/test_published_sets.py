"""The published test sets that are at hand, prepared as conf/benchmark says: how many they are and what they hash to."""

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from launchers.planning import resolvers
from nemo_ext.rows.row import Row

FILES = {
    "gsm8k": ("gsm8k", 1319),
    "math": ("math", 5000),
    "math500": ("math500", 500),
    "numina_math_l4": ("math", 754),
    "numina_math_l5": ("math", 721),
    "amc23": ("amc23", 40),
    "aime24": ("aime24", 30),
    "svamp_qwen": ("svamp", 1000),
    "asdiv_qwen": ("asdiv", 2215),
    "mawps": ("mawps", 2065),
    "gsm_hard_tora": ("gsm_hard", 1319),
    "minerva_math_qwen": ("minerva_math", 272),
}
LEVELS = {1: 437, 2: 894, 3: 1131, 4: 1214, 5: 1324}


def _of_conf(name: str, path: Path) -> dict:
    return {name: OmegaConf.to_container(resolvers.benchmarks([name])[name]) | {"path": str(path)}}  # type: ignore[operator]


@pytest.mark.parametrize("name", FILES)
def test_a_set_that_is_here_is_the_one_of_conf(run, shared_data: Path, name: str) -> None:
    file, count = FILES[name]
    asked = _of_conf(name, shared_data / f"{file}_test.jsonl")
    ran = run("prepare_benchmarks", benchmarks=asked)
    assert len(ran.output) == asked[name]["num_rows"] == count
    assert ran.manifest["figures"][f"{name}.content_hash"] == asked[name]["content_hash"]
    assert all(row["problem"] and row["expected_answer"] for row in ran.output)
    if name == "math":
        assert {level: sum(row["level"] == level for row in ran.output) for level in LEVELS} == LEVELS


@pytest.mark.parametrize("name", ["asdiv_qwen", "svamp_qwen"])
def test_neither_order_nor_format_changes_the_hash(run, shared_data: Path, tmp_path: Path, name: str) -> None:
    rows: list[Row] = [json.loads(line) for line in (shared_data / f"{FILES[name][0]}_test.jsonl").open()]
    random.Random(0).shuffle(rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    (tmp_path / "test.json").write_text(json.dumps(rows, indent=1))
    for file in ("test.parquet", "test.json"):
        run("prepare_benchmarks", benchmarks=_of_conf(name, tmp_path / file), folder=f"of {file}")


@pytest.mark.parametrize(
    ("name", "other"),
    [("asdiv", "asdiv_qwen"), ("svamp", "svamp_qwen"), ("gsm_hard", "gsm_hard_tora"), ("minerva_math", "minerva_math_qwen")],
)  # fmt: skip
def test_another_version_is_never_taken_in_silence(run, shared_data: Path, caplog, name: str, other: str) -> None:
    asked = _of_conf(name, shared_data / f"{FILES[other][0]}_test.jsonl")
    said = rf"and it is what {other} has: benchmarks=\[{other}\]"
    if asked[name]["num_rows"] != FILES[other][1]:
        with pytest.raises(ValueError, match=f"has 2215 problems, but conf/benchmark says 2305, {said}"):
            run("prepare_benchmarks", benchmarks=asked)
        asked[name]["num_rows"] = None
    run("prepare_benchmarks", benchmarks=asked, folder="warned")
    assert "not checked against a known hash" in caplog.text and f"and it is what {other} has" in caplog.text
    asked[name]["content_hash"] = "0" * 64
    with pytest.raises(ValueError, match=f"it is another version or split, {said}"):
        run("prepare_benchmarks", benchmarks=asked, folder="refused")
