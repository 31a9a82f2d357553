"""A released data set: what `datasets` reads of it, splits that nest, the card, a kill in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from nemo_ext.rows.outside.read import read_any
from nemo_ext.rows.row import input_files
from tests.recipes.conftest import write_config

Rows = list[dict[str, Any]]


def pool(problems: int, solutions: int = 3, source: str = "math") -> Rows:
    return [
        {"id": f"{p}", "problem": f"What is {p} + {p}?", "problem_source": source, "generation": "raw", "majority_votes": 3,
         "generated_solution": f"{'so ' * (p * 15)}\\boxed{{{2 * p}}} way {s}", "expected_answer": str(2 * p)}
        for p in range(problems) for s in range(solutions)
    ]  # fmt: skip


@pytest.fixture
def publish(run):
    """The stage's `Ran` needs output files, which this stage does not write."""

    def start(**keys: Any) -> Path:
        with pytest.raises(FileNotFoundError):
            run("publish_data", **keys)
        return run_folder(keys)

    def run_folder(keys: dict[str, Any]) -> Path:
        return Path(keys["input"]).parent / keys.get("folder", "out")

    return start


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def test_datasets_opens_it(publish, rows, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    splits = {"train": None, "train_small": 10, "train_1M": 1_000_000}
    folder = publish(input=rows(pool(12)), splits=splits, title="Toy: sums", more_columns=["majority_votes"])
    opened = datasets.load_dataset(str(folder / "dataset"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in opened.items()} == {"train": 36, "train_small": 10}
    assert opened["train"].column_names == [
        "problem", "generated_solution", "expected_answer", "problem_source", "majority_votes"
    ]  # fmt: skip
    assert opened["train"][3]["expected_answer"] == "2" and opened["train"][3]["majority_votes"] == "3"
    assert len({row["problem"] for row in opened["train_small"]}) == 10, "fair: one of each problem"
    small = {row["generated_solution"] for row in opened["train_small"]}
    assert small < {row["generated_solution"] for row in opened["train"]}
    assert manifest(folder)["figures"]["left_out"] == ["train_1M"]
    lines = list(read_any(folder / "dataset" / "jsonl" / "train-00000-of-00001.jsonl.zst"))
    assert lines == [{**row, "majority_votes": 3} for row in opened["train"]]


def test_datasets_gives_each_folder_its_own_rows(publish, rows, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    data = pool(12)
    other = [
        row | {"generated_solution": row["generated_solution"].translate(str.maketrans("123", "456"))} for row in data
    ]
    assert other != data, "as many, and as long"
    for name, given in (("one", data), ("two", other), ("three", data[:5])):
        folder = publish(input=rows(given), folder=name)
        opened = datasets.load_dataset(str(folder / "dataset"), cache_dir=str(tmp_path / "cache"))["train"]
        assert opened["generated_solution"] == [row["generated_solution"] for row in given]
        (split,) = yaml.safe_load((folder / "dataset" / "README.md").read_text().split("---")[1])["dataset_info"][
            "splits"
        ]
        assert split == {
            "name": "train",
            "num_bytes": opened.info.splits["train"].num_bytes,
            "num_examples": len(given),
        }


def test_a_null_solution_is_none(publish, rows) -> None:
    data = [row | {"generation": row["generated_solution"], "generated_solution": None} for row in pool(3)]
    folder = publish(input=rows([*data, {"problem": "P", "generated_solution": None, "generation": " "}]))
    assert manifest(folder)["rows_out"] == len(data) and manifest(folder)["dropped"] == {"no_solution": 1}


def test_the_card(publish, rows) -> None:
    folder = publish(
        input=rows(
            pool(5) + pool(2, source="gsm8k | x") + pool(1, source="<script>alert(1)</script> [x](javascript:y)")
        ),
        license="cc-by-4.0",
        terms={"teacher": "its own"},
    )
    text = (folder / "dataset" / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["license"] == "cc-by-4.0" and header["size_categories"] == ["n<1K"]
    assert header["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    for line in (
        "| `train` | 24 | 5 |",
        "| math | 15 | 62.5 % |",
        "| gsm8k \\| x | 6 | 25.0 % |",
        "| &lt;script&gt;alert(1)&lt;/script&gt; \\[x\\](javascript:y) | 3 | 12.5 % |",
        "| teacher | its own |",
    ):
        assert line in text
    assert "Not checked: no stage" in text and "| 0 to 250 | 24 | \u2588" in text


def test_the_card_follows_the_lineage(run, publish, tmp_path: Path) -> None:
    own = tmp_path / "seeds.jsonl"
    own.write_text("".join(json.dumps(row | {"is_correct": True}) + "\n" for row in pool(6)) + "torn\n")
    run("downsample", folder="thin", input=str(own), num_rows=10)
    with pytest.raises(FileNotFoundError):
        run("publish_data", input=str(tmp_path / "thin"))
    text = (tmp_path / "out" / "dataset" / "README.md").read_text()
    assert "| thin | 19 | 10 | 1 malformed_json, 8 not_sampled |" in text
    assert "| `seeds.jsonl` | 19 | `" in text and "sample 42" in text


def test_rows_without_a_solution_take_no_place_in_a_split(publish, rows) -> None:
    data = pool(10, 1)
    for row in data[:4]:
        row["generated_solution"] = " "
    folder = publish(input=rows(data), splits={"train": None, "five": 5})
    assert manifest(folder)["figures"]["splits"] == {"train": 6, "five": 5}
    assert manifest(folder)["dropped"] == {"no_solution": 4}


def test_many_files_and_any_number_of_workers(publish, rows) -> None:
    source = rows([row | {"generated_solution": f"{i} " + "y" * 3000} for i, row in enumerate(pool(500, 2))])
    contents = []
    for workers in (1, 2):
        folder = publish(
            input=source, folder=f"w{workers}", splits={"train": None, "some": 99}, file_mb=1, workers=workers
        )
        data = folder / "dataset"
        assert len(list((data / "data").glob("some-*-of-00004.parquet"))) == 4
        assert sum(pq.read_metadata(path).num_rows for path in (data / "data").glob("some-*")) == 99
        contents.append({path.name: path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file()})
    assert contents[0] == contents[1]
    assert len(input_files(str(data / "data" / "train-*.parquet"))) == 4
    with pytest.raises(ValueError, match="no file matches"):
        input_files(str(data / "data" / "tests-*.parquet"))


@pytest.mark.slow
def test_a_killed_run_goes_on_and_leaves_nothing_else(tmp_path: Path, run) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row | {"generated_solution": "z" * 3000}) + "\n" for row in pool(2000, 3)))
    config = write_config(tmp_path / "out", "publish_data", {"input": str(source), "file_mb": 1, "workers": 2})
    process = subprocess.Popen([sys.executable, "-m", "recipes.run_stage", str(config)], cwd=Path(__file__).parents[4])
    part = tmp_path / "out" / "parts" / "00000.json"
    while not part.exists():
        assert process.poll() is None or part.exists()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = tmp_path / "out" / "dataset" / "data" / "train-00000-of-00019.parquet"
    before = first.stat().st_mtime_ns
    with pytest.raises(FileNotFoundError):
        run("publish_data", input=str(source), file_mb=1, workers=2)
    assert first.stat().st_mtime_ns == before
    tables = [pq.read_table(path) for path in sorted(first.parent.glob("*.parquet"))]
    assert len(pa.concat_tables(tables)) == 6000 and len(tables) == 19


def test_nonsense_is_refused(run) -> None:
    for keys, said in (
        ({"splits": {"train": 0}}, "at least one row"),
        ({"splits": {"../x": None}}, "cannot be a split's name"),
        ({"file_mb": 0}, "must be 1 or more"),
        ({"splits": {"all": None}}, "cannot be a split's name"),
    ):
        with pytest.raises(ValueError, match=said):
            run("publish_data", input="x", **keys)


@pytest.mark.parametrize("columns", [["problem"], ["a", "a"], [""]])
def test_columns_that_are_there_already(run, columns: list[str]) -> None:
    with pytest.raises(ValueError, match="is empty or there twice"):
        run("publish_data", input="x", more_columns=columns)


def test_what_a_killed_run_had_begun_is_not_published(publish, rows) -> None:
    source = rows(pool(2))
    data = Path(source).parent / "out" / "dataset" / "data"
    data.mkdir(parents=True)
    (data / ".train-00000-of-00001.parquet.abc.tmp").write_text("half")
    folder = publish(input=source, title="A\n\n# B")
    assert [path.name for path in data.iterdir()] == ["train-00000-of-00001.parquet"]
    assert "\n# A # B\n" in (folder / "dataset" / "README.md").read_text()


def test_a_data_set_is_not_published_over_itself(publish, run, rows) -> None:
    folder = publish(input=rows(pool(2)))
    (written,) = (folder / "dataset" / "data").glob("*")
    with pytest.raises(ValueError, match="where the data set is written to"):
        run("publish_data", input=str(written), file_mb=1)
    assert written.is_file()
