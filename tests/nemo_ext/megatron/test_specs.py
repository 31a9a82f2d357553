"""GPTModel against transformers, with real tensor and pipeline parallel processes."""

from pathlib import Path
from typing import Any

import pytest

from tests.nemo_ext.megatron.ranks import run_ranks

PROGRAMS = "tests.nemo_ext.megatron.programs"
TOLERANCE = 1e-4
TWO_RANKS: list[dict[str, Any]] = [{"tp": 2}, {"pp": 2}, {"tp": 2, "sequence_parallel": True}]


@pytest.mark.parametrize(("size", "cases"), [(1, [{}]), (2, TWO_RANKS)], ids=["one process", "two processes"])
def test_logits_equal_transformers(size: int, cases: list[dict[str, Any]], llama31: Path, tied: Path) -> None:
    folders = [str(llama31), str(tied)]
    ranks = run_ranks(size, PROGRAMS, "logits", {"cases": cases, "folders": folders})
    checked = ranks[-1]  # always a last stage
    assert len(checked) == len(cases) * len(folders)
    assert [entry for entry in checked if not entry[2] < TOLERANCE] == []
