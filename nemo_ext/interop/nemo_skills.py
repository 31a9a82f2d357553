"""An evaluation in the layout of NeMo-Skills, as its `eval` leaves it and its `summarize_results` reads it.

<folder>/eval-results/<benchmark>/output.jsonl         greedy; several samples: output-rs0.jsonl, output-rs1.jsonl, ...
    {"problem": ..., "expected_answer": "18", "generation": ..., "predicted_answer": "18", "is_correct": true, ...}
<folder>/eval-results/<benchmark>/output.jsonl.done    empty: this file is whole
<folder>/eval-results/metrics.json                     {"gsm8k": {"pass@1[avg-of-4]": {"num_entries": 1319, ...}, ...}}

Rows have the verdict of the rules under both of its names there: is_correct until 2025, symbolic_correct since.
"""

import json
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from nemo_ext.interop.lm_eval import sanitised
from nemo_ext.records.files import atomic_open, write_json_atomic, write_text_atomic
from nemo_ext.rows.row import Row, written_solution

JUDGEMENTS = {True: "Judgement: Yes", False: "Judgement: No"}
OURS = frozenset({"is_correct", "verdicts", "sample", "reward", "benchmark", "generated_solution"})


def write_nemo_skills(folder: Path, rows: Iterable[Row], scores: dict[str, Any]) -> list[Path]:
    """The files written, metrics.json last.

    Args:
        rows: of an evaluation: a problem's samples one after the other, in order, a benchmark's problems likewise.
        scores: its scores.json.

    Raises:
        ValueError: a benchmark's problems have different numbers of samples, which NeMo-Skills cannot say.
    """
    root, samples = folder / "eval-results", int(scores.get("num_samples", 1))
    paths = []
    for benchmark, group in groupby(rows, key=lambda row: row["benchmark"]):
        names = [f"output-rs{sample}.jsonl" for sample in range(samples)] if samples > 1 else ["output.jsonl"]
        files = [root / sanitised(benchmark) / name for name in names]
        _write_rows(files, group, benchmark)
        paths += files
    for path in paths:
        write_text_atomic(path.with_name(path.name + ".done"), "")
    metrics = root / "metrics.json"
    write_json_atomic(metrics, {name: _metrics(name, scores) for name in scores["benchmarks"]})
    return [*paths, metrics]


def _write_rows(files: list[Path], rows: Iterable[Row], benchmark: str) -> None:
    with ExitStack() as stack:
        out: list[IO[bytes]] = [stack.enter_context(atomic_open(path)) for path in files]
        for problem, group in groupby(rows, key=lambda row: row["id"]):
            samples = list(group)
            if len(samples) != len(out):
                raise ValueError(f"{benchmark}: problem {problem} has {len(samples)} samples, the others {len(out)}")
            for handle, row in zip(out, samples, strict=True):
                handle.write(json.dumps(_row(row), ensure_ascii=False).encode() + b"\n")


def _row(row: Row) -> Row:
    verdicts = row.get("verdicts") or {"symbolic": row["is_correct"]}
    converted = {key: value for key, value in row.items() if key not in OURS} | {
        "generation": written_solution(row) or ""
    }
    symbolic = verdicts.get("symbolic", row["is_correct"])
    converted |= {"is_correct": symbolic is True, "symbolic_correct": symbolic is True}
    if verdicts.get("judge") is not None:
        converted["judgement"] = JUDGEMENTS[verdicts["judge"]]
    return converted | ({"reward_model_score": row["reward"]} if row.get("reward") is not None else {})


def _metrics(benchmark: str, scores: dict[str, Any]) -> dict[str, Any]:
    """Percentages per way of adding samples up, under NeMo-Skills' names."""
    scored, samples = scores["benchmarks"][benchmark], int(scores.get("num_samples", 1))
    problems = scored.get("problems", scored["total"])
    average = "pass@1" if samples == 1 else f"pass@1[avg-of-{samples}]"
    rest = {name: each["value"] for name, each in scored.get("metrics", {}).items() if name != "pass@1"}
    key = "judge_correct" if scores["contract"].get("grader") == "judge" else "symbolic_correct"
    figures = {average: {"num_entries": problems, key: 100 * scored["accuracy"]}}
    figures[average]["no_answer"] = 100 * scored["no_answer_rate"]
    return figures | {name: {"num_entries": problems, key: 100 * value} for name, value in rest.items()}
