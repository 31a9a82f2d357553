"""Files equal to the safetensors library's, and headers that do not fit theirs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from nemo_ext.models.safetensors_file import read_header, write_safetensors

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


def blocks(tensors: dict[str, torch.Tensor], length: int) -> Iterator[torch.Tensor]:
    for name in sorted(tensors):
        yield from tensors[name].flatten().split(length)


@given(
    sizes=st.dictionaries(NAMES.filter(lambda name: name != "__metadata__"), SIZES, min_size=1, max_size=6),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    length=st.integers(1, 40),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_a_file_is_the_library_s_byte_for_byte(
    tmp_path: Path, sizes: dict[str, tuple[int, ...]], dtype: torch.dtype, length: int
) -> None:
    tensors = {name: torch.randn(size).to(dtype) for name, size in sizes.items()}
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    write_safetensors(ours, sizes, dtype, blocks(tensors, length))
    save_file(tensors, theirs, metadata={"format": "pt"})
    assert ours.read_bytes() == theirs.read_bytes()
    assert read_header(ours) == sizes


def test_too_few_elements_are_not_written_silently(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the header says"):
        write_safetensors(tmp_path / "a", {"w": (3,)}, torch.float32, iter([torch.ones(2)]))


def test_a_file_that_is_cut_short_names_its_tensor(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"first": torch.ones(4), "second": torch.ones(4)}, path)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=rf"is cut short: tensor second ends at byte {len(content)}"):
        read_header(path)
    with pytest.raises(Exception, match="incomplete|invalid"), safe_open(path, framework="pt"):
        pass  # so does the library, without a name
    path.write_bytes(content[:30])
    with pytest.raises(ValueError, match="is cut short or no safetensors file: 30 bytes"):
        read_header(path)
    path.write_bytes((2).to_bytes(8, "little") + b"ab")
    with pytest.raises(ValueError, match="its header is not JSON"):
        read_header(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n")
    with pytest.raises(ValueError, match="no safetensors file"):
        read_header(path)
    with pytest.raises(ValueError, match="is missing"):
        read_header(tmp_path / "absent")
    assert json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]), "the header was whole before"
