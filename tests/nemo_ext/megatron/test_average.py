"""Averages against numpy, to the bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp

from nemo_ext.megatron import torch_dist
from nemo_ext.megatron.average import average, averaged_from
from nemo_ext.megatron.layout import select_steps
from nemo_ext.megatron.torch_dist import TorchDistReader, blocks

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def steps(trained: dict[str, dict[str, Any]]) -> list[Path]:
    return select_steps(Path(trained["tensor"]["result"]["checkpoint"]).parent, [2, 4, 6])


def write(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True)
    dcp.save(tensors, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    return folder


def test_it_is_numpys_mean_in_fp32(steps: list[Path], tmp_path: Path) -> None:
    out = average(steps, tmp_path / "average")
    readers, result = [TorchDistReader(step) for step in steps], TorchDistReader(out)
    assert result.weights == readers[0].weights
    assert averaged_from(out) == [str(step) for step in steps]
    changed = 0
    for key in result.weights:
        inputs = [reader.read(key).numpy() for reader in readers]
        expected = np.mean(np.stack(inputs), axis=0, dtype=np.float32)
        assert result.dtype(key) == torch.float32
        assert np.array_equal(result.read(key).numpy(), expected), key
        changed += not np.array_equal(inputs[0], inputs[2])
    assert changed > 5, "the checkpoints must differ for this to show anything"


def test_bf16_is_accumulated_in_fp32(tmp_path: Path) -> None:
    """256 + 1 + 1 + 1: in bf16 each 1 is lost; the mean is 64.75."""
    values = [256.0, 1.0, 1.0, 1.0]
    folders = [
        write(tmp_path / str(i), {"w": torch.full((3, 2), value, dtype=torch.bfloat16)})
        for i, value in enumerate(values)
    ]
    result = TorchDistReader(average(folders, tmp_path / "average")).read("w")
    assert torch.equal(result, torch.full((3, 2), 64.75))


def test_the_optimizers_fp32_weights_are_preferred(tmp_path: Path) -> None:
    weight = torch.tensor([1.001, 2.002])
    tensors = {"w": weight.bfloat16(), "optimizer.state.param.w": weight, "optimizer.state.exp_avg.w": weight * 0}
    result = TorchDistReader(average([write(tmp_path / "a", tensors)], tmp_path / "average"))
    assert result.weights == list(result.tensors) == ["w"]
    assert torch.equal(result.read("w"), weight)


def test_slices_tile_stacked_and_large_tensors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert list(blocks((3, 4, 5), stacked=True)) == [((i, 0, 0), (1, 4, 5)) for i in range(3)]
    monkeypatch.setattr(torch_dist, "MAX_BLOCK", 6)
    for size, stacked in (((7, 4), False), ((2, 5, 3), True), ((9,), False)):
        seen = torch.zeros(size, dtype=torch.int64)
        for offsets, sizes in blocks(size, stacked):
            part = seen
            for dim, (start, length) in enumerate(zip(offsets, sizes, strict=True)):
                part = part.narrow(dim, start, length)
            assert part.numel() <= 6
            part += 1
        assert seen.eq(1).all()
    weights = [torch.randn(4, 3, 5) for _ in range(2)]
    folders = [write(tmp_path / str(i), {"decoder.layers.w": weight}) for i, weight in enumerate(weights)]
    result = TorchDistReader(average(folders, tmp_path / "average"))
    assert torch.equal(result.read("decoder.layers.w"), (weights[0] + weights[1]) / 2)
    assert torch.equal(
        result.read("decoder.layers.w", (1, 1, 2), (2, 2, 3)), ((weights[0] + weights[1]) / 2)[1:3, 1:3, 2:]
    )


def test_different_models_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a", {"w": torch.zeros(2), "x": torch.zeros(1)})
    other_size = write(tmp_path / "b", {"w": torch.zeros(3), "x": torch.zeros(1)})
    other_keys = write(tmp_path / "c", {"w": torch.zeros(2), "y": torch.zeros(1)})
    out = tmp_path / "average"
    with pytest.raises(ValueError, match=r"w is \(2,\) in .* but \(3,\)"):
        average([first, other_size], out)
    with pytest.raises(ValueError, match="different tensors: x, y"):
        average([first, other_keys], out)
    with pytest.raises(ValueError, match="checkpoint_dirs is empty"):
        average([], out)
    with pytest.raises(ValueError, match=r"has no \.metadata"):
        average([tmp_path / "absent"], out)
    (first / ".metadata").write_bytes(b"")
    with pytest.raises(ValueError, match="is damaged"):
        average([first], out)
    assert not out.exists()
