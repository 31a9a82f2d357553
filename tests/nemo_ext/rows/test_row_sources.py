from pathlib import Path
from typing import Any

import pytest

from nemo_ext.rows.row import input_files
from nemo_ext.rows.sources import data_files

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
    for files in (lambda: input_files(place), lambda: data_files(str(place), None)):
        with pytest.raises(ValueError, match=said):
            files()
    train = [place / "data" / f"{name}.parquet" for name in NESTED[:2]]
    assert data_files(str(place), "train") == input_files(f"{place}/data/train[-.]*") == train
    assert [file.name for file in data_files(str(place), "train_1M+train_2M")] == [
        f"{name}.parquet" for name in NESTED[2:]
    ]
    with pytest.raises(ValueError, match=r"no files of the split 'test' .*it has train-00000"):
        data_files(str(place), "test")


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
    found = data_files("hf://nvidia/OpenMathInstruct-2@v1", "train")
    assert [path.name for path in found] == [f"{name}.parquet" for name in NESTED[:2]]
    assert (asked["name"], asked["revision"], asked["allow_patterns"]) == (
        "nvidia/OpenMathInstruct-2",
        "v1",
        ["*train.*", "*train-*"],
    )
    with pytest.raises(ValueError, match="which split is meant"):
        data_files("hf://nvidia/OpenMathInstruct-2", None)


def test_a_split_of_a_file_is_no_question(tmp_path: Path) -> None:
    path = folder_of(tmp_path, "rows.jsonl") / "rows.jsonl"
    assert data_files(str(path), None) == [path]
    with pytest.raises(ValueError, match=r"split=train says .*rows\.jsonl is no folder"):
        data_files(str(path), "train")
