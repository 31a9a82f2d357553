import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.rows import schemes
from nemo_ext.rows.row import input_files
from nemo_ext.rows.sources import comes_meanwhile, data_files, is_path

NESTED = ["train-00000-of-00002", "train-00001-of-00002", "train_1M-00000-of-00001", "train_2M-00000-of-00001"]


def folder_of(place: Path, *names: str) -> Path:
    for name in names:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return place


def test_a_folder_of_several_splits_is_asked_back(tmp_path: Path) -> None:
    place = folder_of(tmp_path, "README.md", *(f"data/{name}.parquet" for name in NESTED))
    said = rf"has the splits train, train_1M, train_2M, .*split=train, .*'{place}/data/train\[-\.\]\*'"
    for files in (lambda: input_files(place), lambda: data_files(str(place), None, tmp_path)):
        with pytest.raises(ValueError, match=said):
            files()
    train = [place / "data" / f"{name}.parquet" for name in NESTED[:2]]
    assert data_files(str(place), "train", tmp_path) == input_files(f"{place}/data/train[-.]*") == train
    assert [file.name for file in data_files(str(place), "train_1M+train_2M", tmp_path)] == [
        f"{name}.parquet" for name in NESTED[2:]
    ]
    with pytest.raises(ValueError, match=r"no files of the split 'test' .*it has train-00000"):
        data_files(str(place), "test", tmp_path)


@pytest.mark.parametrize(
    "names", [("train.jsonl", "test.jsonl"), ("training.json", "validation.json"), ("dev.jsonl", "eval-1.jsonl")]
)
def test_split_names_are_known(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="has the splits"):
        input_files(folder_of(tmp_path, *names))


@pytest.mark.parametrize(
    "names", [("a.jsonl", "b.jsonl"), ("trains.jsonl", "tests.jsonl"), ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet"),
              ("train.jsonl",), ("rows-1.jsonl", "train.jsonl"), ("rows-00000-of-00001.jsonl", "data/rows-00000-of-00001.jsonl")]
)  # fmt: skip
def test_files_of_one_split_or_none_are_taken_together(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert len(input_files(folder_of(tmp_path, *names))) == len(names)


def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def snapshot_download(name: str, **keys: Any) -> str:
        asked.update(keys, name=name)
        return str(folder_of(tmp_path, *(f"data/{each}.parquet" for each in NESTED)))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    found = data_files("hf://nvidia/OpenMathInstruct-2@v1", "train", tmp_path)
    assert [path.name for path in found] == [f"{name}.parquet" for name in NESTED[:2]]
    assert (asked["name"], asked["revision"], asked["allow_patterns"]) == (
        "nvidia/OpenMathInstruct-2",
        "v1",
        ["*train.*", "*train-*"],
    )
    with pytest.raises(ValueError, match="which split is meant"):
        data_files("hf://nvidia/OpenMathInstruct-2", None, tmp_path)


def test_a_split_of_a_file_is_no_question(tmp_path: Path) -> None:
    path = folder_of(tmp_path, "rows.jsonl") / "rows.jsonl"
    assert data_files(str(path), None, tmp_path) == [path]
    with pytest.raises(ValueError, match=r"split=train says .*rows\.jsonl is not a folder"):
        data_files(str(path), "train", tmp_path)


def test_toy_rows_are_a_file_that_is_made(tmp_path: Path) -> None:
    (path,) = data_files("toy://seeds/gsm8k?num_rows=5&contaminated=2", None, tmp_path / "first")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 7 and sum("contaminates" in row for row in rows) == 2
    (again,) = data_files("toy://seeds/gsm8k?num_rows=5&contaminated=2", None, tmp_path / "second")
    assert again.read_bytes() == path.read_bytes()
    (tests,) = data_files("toy://test/math?num_rows=3", None, tmp_path)
    assert len(tests.read_text().splitlines()) == 3


def test_two_toy_addresses_are_two_files(tmp_path: Path) -> None:
    """Stages read several at once, and one must not be written over another."""
    addresses = [f"toy://seeds/math?num_rows=4{more}" for more in ("", "&seed=1", "&large=1", "&large=1&seed=1")]
    made = [data_files(address, None, tmp_path)[0] for address in addresses]
    assert len({path.read_bytes() for path in made}) == len(addresses)
    subjects = [[json.loads(line).get("subject") for line in path.read_text().splitlines()] for path in made]
    assert subjects[:2] == [[None] * 4] * 2 and all(subjects[2] + subjects[3])


@pytest.mark.parametrize(
    ("address", "split", "said"),
    [
        ("toy://", None, "it may be toy://solved"),
        ("toy://seeds", None, "with a source of"),
        ("toy://seeds/latin", None, "with a source of"),
        ("toy://solved/gsm8k", None, "with a source of"),
        ("toy://test/math?num_rows=many", None, "num_rows='many'"),
        ("toy://test/math?rows=3", None, "rows='3'"),
        ("toy://solved", "train", "has no splits"),
        ("s3://bucket/rows.jsonl", None, "no scheme s3://; there are hf://, toy://, and paths"),
    ],
)
def test_an_address_of_another_form_is_refused(tmp_path: Path, address: str, split: str | None, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        data_files(address, split, tmp_path)


def test_a_scheme_is_added_as_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fixed.py").write_text(
        "from pathlib import Path\n"
        "FETCHED, IS_PATH = False, False\n"
        "def files(address, split, made_in):\n    return [Path(made_in) / address.removeprefix('fixed://')]\n"
        "def patterns(address, split):\n    return []\n"
    )
    monkeypatch.setattr(schemes, "__path__", [*schemes.__path__, str(tmp_path)])
    assert data_files("fixed://rows.jsonl", None, tmp_path) == [tmp_path / "rows.jsonl"]
    assert not is_path("fixed://rows.jsonl") and not comes_meanwhile("fixed://rows.jsonl")
    monkeypatch.delitem(sys.modules, "nemo_ext.rows.schemes.fixed")
