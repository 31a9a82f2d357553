"""What the ranks of test_stragglers.py run: a training in which rank 1 takes a nap with every pack."""

import os
import time
from typing import Any

from nemo_ext.megatron.runtime import pipeline_pass
from tests.nemo_ext.megatron import programs


def train_with_a_slow_rank(argument: dict[str, Any]) -> list[Any]:
    original = pipeline_pass.microbatch

    def napping(*args: Any) -> dict[str, Any]:
        if os.environ["RANK"] == "1":
            time.sleep(0.15)
        return original(*args)

    pipeline_pass.microbatch = napping
    return programs.train_runs(argument)
