"""+recipe=downsample, inject_noise and publish_data on a person's own file, one command each."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from launchers.planning import plan
from tests.composing import compose_recipe
from tests.recipes.conftest import lines

Finish = Callable[..., str]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    made = [
        {
            "question": f"What is {p} + {s}?",
            "answer": f"{p + s}",
            "solution": f"\\boxed{{{p + s}}}",
            "is_correct": True,
            "mine": s,
        }
        for p in range(30)
        for s in range(3)
    ]
    path.write_bytes(
        b"".join(json.dumps(row).encode() + b"\n" for row in made) + b'{"question": "cut\n\x00\xff\n' + b"[" * 5000
    )
    return path


def test_one_command_each(finish: Finish, rows: Path, tmp_path: Path) -> None:
    said = finish("+recipe=downsample", f"input={rows}", "stages.downsample.num_rows=40")
    assert "40 rows" in said and "3 malformed_json" in said
    thin = tmp_path / "downsample" / "downsample"
    assert len(lines(thin / "output.jsonl")) == 40 and lines(thin / "output.jsonl")[0]["expected_answer"].isdigit()
    finish("+recipe=inject_noise", f"input={thin}", "stages.inject_noise.rate=0.25")
    noisy = [row for row in lines(tmp_path / "inject_noise" / "inject_noise" / "output.jsonl") if row.get("noise")]
    assert len(noisy) == 10
    finish(
        "+recipe=publish_data",
        f"input={thin}",
        "+stages.publish.splits.small=7",
        "stages.publish.license=mit",
    )
    data = tmp_path / "publish_data" / "publish" / "dataset"
    assert pq.read_table(data / "data" / "small-00000-of-00001.parquet").num_rows == 7
    assert "| downsample | 93 | 40 |" in (data / "README.md").read_text()


def test_mistakes_are_told_in_one_line(finish: Finish, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="it may be one of"):
        plan.resolve(compose_recipe("downsample", "stages.downsample.method=best"), tmp_path)
    for words, said, code in (
        (["+recipe=inject_noise", f"input={rows}", "stages.inject_noise.kind=wrong_answer", "stages.inject_noise.rate=0.5"],
         "need 45 correct and 45 wrong ones; the input has 90 and 0", 1),
        (["+recipe=publish_data", f"input={tmp_path}/*.xls"], "stages.publish.input: there is no", 2),
    ):  # fmt: skip
        output = finish(*words, f"run_name={len(said)}", code=code)
        assert said in output and "Traceback" not in output, output
