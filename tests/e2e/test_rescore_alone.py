"""+recipe=rescore on files of another tool, and +recipe=compare with its result: one command each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

Finish = Callable[..., str]


def test_rescore_and_compare(finish: Finish, tmp_path: Path) -> None:
    for seed in range(2):
        rows = [
            {"problem": f"P{i}", "expected_answer": "0.5", "generation": rf"\boxed{{{'1/2' if i % 3 > seed else i}}}"}
            for i in range(12)
        ]
        (tmp_path / f"output-rs{seed}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = finish("+recipe=rescore", f"input='{tmp_path}/output-rs*.jsonl'")
    assert "rows 50.0 %" in said and "symbolic - hendrycks" in said
    folder = tmp_path / "rescore" / "rescore"
    scores = json.loads((folder / "scores.json").read_text())["benchmarks"]["rows"]
    assert (scores["samples"], scores["accuracy"]) == (24, 0.5)

    shutil.copytree(folder, tmp_path / "again")
    allowed = "stages.compare.allow_contract_mismatch=true"  # nobody knows what another tool's rows were asked
    finish("+recipe=compare", f"input={folder}", f"second={tmp_path / 'again'}", allowed)
    told = (tmp_path / "compare" / "compare" / "comparison.txt").read_text()
    assert "prompt_hash: not known against not known" in told and "+0.0 points" in told
