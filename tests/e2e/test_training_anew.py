"""A training made anew, or on other rows, under the same names: nothing of the old one passes for the new one's."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_ext.megatron.checkpoint_files import read_record
from nemo_ext.records.files import sha256_file
from nemo_ext.toy.sources import benchmark, solved

ROWS, PROBLEMS = 96, 8


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A small training with its average and evaluation."""
    rows = [row for row, _ in zip(solved(), range(ROWS), strict=False)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    problems = [{key: row[key] for key in ("id", "problem", "expected_answer")} for row in benchmark("math", PROBLEMS)]
    (tmp_path / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in problems))
    sizes = {
        "train_iters": 6, "num_checkpoints": 2, "save_interval": 3, "validation_fraction": 0, "global_batch_size": 8,
        "tensor_model_parallel_size": 1, "answer_tokens": 16,
    }  # fmt: skip
    return [
        "+recipe=sft_full", "+scale=tiny", f"data={tmp_path / 'rows.jsonl'}", f"benchmarks=[{tmp_path / 'problems.jsonl'}]",
        *(f"sizes.{name}={value}" for name, value in sizes.items()), f"run_dir={tmp_path / 'run'}",
    ]  # fmt: skip


class Results:
    """What a run's stages hold, by content."""

    def __init__(self, run: Path) -> None:
        self.weights = sha256_file(run / "average" / "average" / "model.safetensors")
        self.answers = sha256_file(run / "evaluate" / "average" / "output.jsonl")
        self.base = sha256_file(run / "evaluate" / "base" / "output.jsonl")
        self.scored = json.loads((run / "evaluate" / "average" / "scores.json").read_text())["contract"]["model_hash"]
        self.origins = [read_record(path)["trained_on"] for path in sorted(run.glob("train/checkpoints/step_*"))]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_old_results_do_not_pass_for_new_ones(finish: Callable[..., str], words: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    finish(*words)
    first = Results(run)
    assert len(first.origins) == 2 and first.origins[0] == first.origins[1] != {}

    finish(*words, "stages.train.lr=5e-2", "only=[train]", "redo=true")
    said = finish(*words, "stages.train.lr=5e-2", "only=[report]")
    assert "evaluate is left out and out of date" not in said, "its own inputs are there; it is average's that changed"
    assert "average was made before its inputs changed" in (run / "report.html").read_text()
    finish(*words, "stages.train.lr=5e-2")
    second = Results(run)
    again = finish(*words, "stages.train.lr=5e-2")
    assert Results(run).__dict__ == second.__dict__ and again.count("  done  ") == 7, again
    assert second.weights != first.weights and second.answers != first.answers and second.scored != first.scored
    assert second.base == first.base and second.origins == first.origins
    assert "was made before its inputs changed" not in (run / "report.html").read_text()

    data = tmp_path / "rows.jsonl"
    data.write_text("".join(sorted(data.read_text().splitlines(keepends=True))[1:]))
    said = finish(*words, "stages.train.lr=5e-2", code=1)
    assert "was trained on another training set" in said and "redo=true" in said
    assert Results(run).__dict__ == second.__dict__, "the old training is kept, as what it was"
    finish(*words, "stages.train.lr=5e-2", "only=[train]", "redo=true")
    finish(*words, "stages.train.lr=5e-2", "only=[average]")
    third = Results(run)
    assert third.weights != second.weights and third.origins[0]["train"] != second.origins[0]["train"]
    assert third.origins[0]["model"] == second.origins[0]["model"]

    shard = next(run.glob("train/checkpoints/step_0000003/*.distcp"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    said = finish(*words, "stages.train.lr=5e-2", "only=[average]", "redo=true", code=1)
    assert f"step_0000003/{shard.name} holds other bytes than were saved" in said.replace("\n", "")
