"""Reading parts of torch_dist checkpoints, and refusing damaged ones."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.distributed.checkpoint.metadata import Metadata

from nemo_ext.megatron.weights import torch_dist
from nemo_ext.megatron.weights.dcp_metadata import read_metadata
from nemo_ext.megatron.weights.torch_dist import TorchDistReader
from tests.nemo_ext.megatron.checkpoints import Box, whole, write_boxes

KEY = "decoder.w"


def tiles(tensor: torch.Tensor, counts: tuple[int, ...]) -> list[tuple[Box, torch.Tensor]]:
    """The tensor cut into `counts` parts along each dimension, as parallel ranks would hold it."""
    parts = [((0,) * tensor.dim(), tensor)]
    for dim, count in enumerate(counts):
        cut = []
        for offsets, part in parts:
            at = 0
            for piece in part.chunk(count, dim):
                cut.append(((*offsets[:dim], offsets[dim] + at, *offsets[dim + 1 :]), piece))
                at += piece.shape[dim]
        parts = cut
    return [((offsets, tuple(part.shape)), part.clone()) for offsets, part in parts]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.Tensor, TorchDistReader]:
    """A tensor of 4 stacked layers in 12 boxes over 5 files."""
    tensor = torch.randn(4, 9, 8)
    folder = tmp_path_factory.mktemp("boxes") / "step_0000001"
    return tensor, TorchDistReader(write_boxes(folder, {KEY: tiles(tensor, (2, 3, 2))}, num_files=5))


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_box_equals_the_slice(stored: tuple[torch.Tensor, TorchDistReader], data: st.DataObject) -> None:
    tensor, reader = stored
    ranges = [
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in tensor.shape
    ]
    expected = tensor[tuple(slice(*r) for r in ranges)]
    read = reader.read(KEY, [start for start, _ in ranges], list(expected.shape))
    assert torch.equal(read, expected)


def test_only_the_bytes_of_whole_rows_are_read(
    stored: tuple[torch.Tensor, TorchDistReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, reader = stored
    reader.read(KEY, (1, 3, 0), (1, 2, 8))  # the places of the boxes are known from here on
    counts: list[int] = []
    preadv = os.preadv

    def counting(*arguments: Any) -> int:
        counts.append(preadv(*arguments))
        return counts[-1]

    monkeypatch.setattr(os, "preadv", counting)
    reader.read(KEY, (1, 3, 0), (1, 2, 8))
    assert counts == [2 * 4 * 4, 2 * 4 * 4], "two rows of each of two boxes that are four fp32 columns wide"


def test_more_files_than_are_kept_open_and_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_dist, "MAX_OPEN", 2)
    tensor = torch.randn(64, 3)
    reader = TorchDistReader(write_boxes(tmp_path / "a", {KEY: tiles(tensor, (16, 1))}, num_files=16))
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda row: reader.read(KEY, (row, 0), (1, 3)), [i * 7 % 64 for i in range(256)]))
    assert all(torch.equal(row[0], tensor[i * 7 % 64]) for i, row in enumerate(rows))
    assert 0 < opened_in(tmp_path) <= 2


def opened_in(folder: Path) -> int:
    """Files of the folder that this process has open."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile by another thread
            count += str(descriptor.readlink()).startswith(str(folder))
    return count


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_torch_itself_saves(tmp_path: Path, dtype: torch.dtype) -> None:
    large = torch.arange(60.0).to(dtype).reshape(10, 6)
    tensors = {
        "embedding.view": large[3:7],  # a part of a larger storage
        "embedding.turned": large.T,  # columns first: read whole, in one piece
        "embedding.single": torch.tensor([2.5], dtype=dtype),
    }
    dcp.save(tensors, storage_writer=dcp.FileSystemWriter(tmp_path / "a"), no_dist=True)
    reader = TorchDistReader(tmp_path / "a")
    assert reader.weights == sorted(tensors)
    for key, tensor in tensors.items():
        assert reader.dtype(key) == dtype
        assert torch.equal(reader.read(key), tensor)
    assert torch.equal(reader.read("embedding.turned", (1, 2), (3, 4)), large.T[1:4, 2:6])


def test_the_fp32_copy_is_found_if_it_is_as_large(tmp_path: Path) -> None:
    tensors = {name: torch.zeros(4) for name in ("decoder.a", "decoder.b", "decoder.c", "decoder.d")}
    tensors |= {
        "optimizer.state.param.decoder.a": torch.zeros(4),
        "optimizer.state.fp32_param.decoder.b": torch.zeros(4),
        "optimizer.state.param.decoder.c": torch.zeros(7),  # flattened over ranks, by another trainer
        "optimizer.state.exp_avg.decoder.d": torch.zeros(4),
    }
    reader = TorchDistReader(write_boxes(tmp_path / "a", whole(tensors)))
    assert [reader.main_key(f"decoder.{name}") for name in "abcd"] == [
        "optimizer.state.param.decoder.a",
        "optimizer.state.fp32_param.decoder.b",
        "decoder.c",
        "decoder.d",
    ]
    assert reader.weights == ["decoder.a", "decoder.b", "decoder.c", "decoder.d"]


def test_missing_and_cut_files_name_the_tensor(tmp_path: Path) -> None:
    reader = TorchDistReader(write_boxes(tmp_path / "a", whole({"decoder.a": torch.ones(5), KEY: torch.ones(900)})))
    shard = tmp_path / "a" / "__0_0.distcp"
    reader.check_files(["decoder.a", KEY])
    content = shard.read_bytes()
    shard.write_bytes(content[:-10])
    reader.check_files(["decoder.a"])
    with pytest.raises(ValueError, match=rf"__0_0\.distcp is cut short: a part of {KEY} ends at byte {len(content)}"):
        reader.check_files(["decoder.a", KEY])
    with pytest.raises(ValueError, match=rf"__0_0\.distcp: {KEY} is damaged"):
        reader.read(KEY)
    shard.unlink()
    with pytest.raises(ValueError, match=r"__0_0\.distcp, which holds a part of decoder\.a, is missing"):
        reader.check_files(["decoder.a", KEY])


def test_a_box_that_is_not_what_the_metadata_says(tmp_path: Path) -> None:
    folder = write_boxes(tmp_path / "a", whole({KEY: torch.ones(6)}))
    other = write_boxes(tmp_path / "b", whole({KEY: torch.ones(6, dtype=torch.bfloat16)}))
    (other / "__0_0.distcp").write_bytes((folder / "__0_0.distcp").read_bytes())
    with pytest.raises(ValueError, match=rf"{KEY} at \(0,\) is \(6,\) torch\.float32, .* says \(6,\) torch\.bfloat16"):
        TorchDistReader(other).read(KEY)
    gap = write_boxes(tmp_path / "c", {KEY: [(((4,), (2,)), torch.ones(2))]})
    with pytest.raises(ValueError, match=rf"{KEY} has 2 of 6 elements"):
        TorchDistReader(gap).read(KEY)


class Attack:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def test_metadata_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (Attack(), Metadata({}, planner_data=Attack())):
        (tmp_path / ".metadata").write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=r"\.metadata names posix\.mkdir, a class that is not known here"):
            read_metadata(tmp_path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("version", ["0.13.1", "0.14.0", "0.15.3"])
def test_checkpoints_of_older_megatron_cores_are_read(version: str) -> None:
    """Written by those versions themselves; their metadata names classes that 0.16 does not have."""
    folder = Path(__file__).parent / "old_checkpoints" / f"core_{version}"
    assert b"MCore" in (folder / ".metadata").read_bytes()
    assert torch.equal(TorchDistReader(folder).read(KEY), torch.arange(24.0).reshape(4, 6))


def test_damaged_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no \.metadata: it is not a complete"):
        TorchDistReader(tmp_path)
    folder = write_boxes(tmp_path / "a", whole({KEY: torch.ones(6)}))
    content = (folder / ".metadata").read_bytes()
    for damaged in (b"", content[:-20], b"\x80\x04" + content[40:], pickle.dumps({})):
        (folder / ".metadata").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"\.metadata is damaged"):
            TorchDistReader(folder)
