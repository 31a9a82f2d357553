import os
from pathlib import Path

import numpy as np
import pytest

from nemo_ext.megatron.data.token_folder import PackedData, PackedDataWriter
from tests.nemo_ext.megatron_data.samples import made, write


def test_samples_come_back(data: PackedData) -> None:
    expected = made(103)
    assert len(data) == 103
    for index in (0, 50, 102):
        tokens, mask = data.sample(index)
        assert (tokens.tolist(), mask.tolist()) == expected[index]
    assert data.num_tokens == data.facts["num_tokens"] == sum(len(tokens) for tokens, _ in expected)
    assert data.facts["num_trained_tokens"] == sum(sum(mask) for _, mask in expected)
    assert data.facts["model"] == "tiny" and data.facts["num_samples"] == 103


def test_no_samples(tmp_path: Path) -> None:
    assert len(write(tmp_path, [])) == 0


def test_a_failed_writer_leaves_no_readable_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), PackedDataWriter(tmp_path, {}) as writer:  # noqa: PT012
        writer.add([1], [1])
        raise KeyError
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="not a finished prepare_sft output"):
        PackedData.open(tmp_path)


def test_a_folder_that_is_written_again_is_not_readable_meanwhile(tmp_path: Path) -> None:
    write(tmp_path, made(5))
    with pytest.raises(KeyError), PackedDataWriter(tmp_path, {}):  # noqa: PT012
        assert not (tmp_path / "data.json").exists()
        raise KeyError
    with pytest.raises(ValueError, match="not a finished prepare_sft output"):
        PackedData.open(tmp_path)


@pytest.mark.parametrize("name", ["tokens.bin", "loss_mask.bin"])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, name: str) -> None:
    whole = len(write(tmp_path, made(5))._mask)
    os.truncate(tmp_path / name, (tmp_path / name).stat().st_size // 2 // 4 * 4)
    with pytest.raises(ValueError, match=rf"{name} has \d+ tokens where offsets\.npy counts {whole}"):
        PackedData.open(tmp_path)


def test_a_token_without_an_embedding_is_named(tmp_path: Path) -> None:
    with PackedDataWriter(tmp_path, {}) as writer:
        writer.add([1, 2], [0, 1])
        writer.add([3, 400, 5], [0, 1, 1])
    data = PackedData.open(tmp_path)
    assert data.facts["largest_token"] == 400
    data.require_vocabulary(401)
    said = "sample 1 has the token 400, and the model has embeddings for the ids below 400"
    with pytest.raises(ValueError, match=said):
        data.require_vocabulary(400)
    del data.facts["largest_token"]  # as folders of before have it
    data.require_vocabulary(401)
    with pytest.raises(ValueError, match=said):
        data.require_vocabulary(400)


def test_columns_are_part_of_the_samples(tmp_path: Path) -> None:
    def fingerprint(score: float) -> str:
        with PackedDataWriter(tmp_path, {}, ["score"]) as writer:
            writer.add([1, 2], [0, 1], {"score": score})
        data = PackedData.open(tmp_path)
        assert tmp_path / "columns/score.npy" in data.files and data.columns["score"].tolist() == [score]
        return data.fingerprint()

    assert fingerprint(0.5) != fingerprint(0.25), "a training on other values is another one"
    with (
        pytest.raises(AssertionError, match="a value of every column"),
        PackedDataWriter(tmp_path, {}, ["score"]) as w,
    ):
        w.add([1], [1])


def test_a_column_of_other_samples_is_refused(tmp_path: Path) -> None:
    with PackedDataWriter(tmp_path, {}, ["score"]) as writer:
        writer.add([1, 2], [0, 1], {"score": 0.5})
    np.save(tmp_path / "columns/score.npy", np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"score\.npy has 3 values where offsets\.npy counts 1 samples"):
        PackedData.open(tmp_path)
    (tmp_path / "columns/score.npy").unlink()
    with pytest.raises(ValueError, match=r"score\.npy cannot be read"):
        PackedData.open(tmp_path)
