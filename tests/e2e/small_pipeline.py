"""The whole pipeline at a size smaller still than tiny."""

import json
from pathlib import Path
from typing import Any

SMALL = [
    "+recipe=openmathinstruct2", "+scale=tiny",
    *(f"source.{name}.path=toy://seeds/{name}?num_rows=12&contaminated=3" for name in ("math", "gsm8k")),
    "sizes.seed_solutions_math=2", "sizes.seed_solutions_gsm8k=2", "sizes.new_problems_math=1",
    "sizes.new_problems_gsm8k=1", "sizes.new_solutions=2", "sizes.train_iters=12", "sizes.global_batch_size=4",
    "sizes.answer_tokens=24", "benchmarks=[toy_math]",
    "server.replicas=1",
    *(f"~stages.evaluate.variants.checkpoint_{n}" for n in (2, 3, 4, 5)),
]  # fmt: skip


def data_hash(run: Path) -> str:
    """A hash of the rows that the student is trained on."""
    done = json.loads((run / "downsample" / "_DONE").read_text())
    return str(done["outputs"][0]["sha256"])


def losses(run: Path) -> list[tuple[int, float]]:
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text().splitlines()
    ]
    return [(line["step"], line["loss"]) for line in lines if "loss" in line]
