"""A rank that is slow is named, though every rank's step takes as long as the slowest's."""

import socket
from pathlib import Path

import pytest

from nemo_ext.megatron.record.stragglers import SLOW, slowest
from tests.nemo_ext.megatron.ranks import run_ranks


@pytest.mark.timeout(180)
def test_a_slow_rank_is_named(llama31: Path, data: Path, tmp_path: Path) -> None:
    settings = {"train_iters": 8, "global_batch_size": 16, "pack_length": 256, "dp": 2, "log_interval": 2}
    case = {"hf": str(llama31), "data": str(data), "output": str(tmp_path), "settings": settings}
    lines = run_ranks(2, "tests.nemo_ext.megatron.slow_rank", "train_with_a_slow_rank", {"cases": [case]})[0][0][
        "lines"
    ]
    reports = [line for line in lines if "slowest_rank" in line]
    assert [line["step"] for line in reports] == [2, 4, 6, 8]
    # the first interval also has the first step's warming up, and a busy machine may hold up rank 0 in one of the others
    named = [line for line in reports[1:] if line["slowest_rank"] == 1 and line["slowest_ratio"] > SLOW]
    assert named and named[0]["slowest_host"] == socket.gethostname()


def test_slowest_of_two_shows() -> None:
    assert slowest([1.0, 2.0], ["a", "b"]) == {"slowest_rank": 1, "slowest_host": "b", "slowest_ratio": 2.0}
    assert slowest([0.0], ["a"])["slowest_ratio"] == 1.0
