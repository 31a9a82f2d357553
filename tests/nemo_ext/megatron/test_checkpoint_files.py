"""What a checkpoint says of itself."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nemo_ext.megatron.checkpoint_files import RECORD, read_record, require_whole, why_damaged, write_record
from nemo_ext.megatron.weights.average import average_to_hf
from tests.nemo_ext.megatron.checkpoints import cheap_values, save_shape, write_model
from tests.nemo_ext.megatron.test_average import make_shape

SMALL = make_shape(layers=2, hidden=8, ffn=16, heads=4, groups=2, vocab=11)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_model(tmp_path / "step_0000001", SMALL, torch.bfloat16, True, cheap_values(1))


def test_any_flipped_bit_is_found_before_anything_is_averaged(checkpoint: Path, tmp_path: Path) -> None:
    hf, shard = save_shape(tmp_path / "hf", SMALL), checkpoint / "__0_0.distcp"
    content = shard.read_bytes()
    for place in range(0, len(content), len(content) // 20):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        shard.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"__0_0\.distcp"):
            average_to_hf([checkpoint], hf, tmp_path / "average", "bf16")
        with pytest.raises(ValueError, match=r"__0_0\.distcp holds other bytes than were saved"):
            require_whole(checkpoint)
    assert not (tmp_path / "average").exists()
    shard.write_bytes(content)
    average_to_hf([checkpoint], hf, tmp_path / "average", "bf16")


def test_each_process_looks_at_its_share(checkpoint: Path) -> None:
    files = read_record(checkpoint)["files"]
    assert sorted(files) == [".metadata", "__0_0.distcp", "metadata.json"]
    (checkpoint / "metadata.json").write_text("{}")
    (checkpoint / ".metadata").unlink()
    found = [why_damaged(checkpoint, share, 3) for share in range(3)]
    assert found[0] == f"{checkpoint / '.metadata'} is missing" and found[1] is None
    assert str(found[2]).startswith(f"{checkpoint / 'metadata.json'} has 2 bytes instead of")


def test_hashes_known_from_writing_are_taken(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    write_record(tmp_path, {"model": "m"}, {"a": "told"})
    assert read_record(tmp_path) == {"trained_on": {"model": "m"}, "files": {"a": {"bytes": 3, "xxh128": "told"}}}


@pytest.mark.parametrize("text", ["", "[]", '{"files": {}}', "\x00"])
def test_a_damaged_record_is_named(checkpoint: Path, text: str) -> None:
    (checkpoint / RECORD).write_text(text)
    with pytest.raises(ValueError, match=r"step_0000001/checkpoint\.json is damaged"):
        require_whole(checkpoint)


def test_without_a_record_it_says_how_to_vouch_for_it(checkpoint: Path) -> None:
    (checkpoint / RECORD).unlink()
    with pytest.raises(ValueError, match="nothing says whether it is whole.*checkpoint_files") as raised:
        require_whole(checkpoint)
    command = str(raised.value).partition("write it: python ")[2].split()
    subprocess.run([sys.executable, *command], check=True)
    require_whole(checkpoint)
    assert read_record(checkpoint)["trained_on"] == {}
