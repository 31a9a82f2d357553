"""An evaluation in the layout of lm-evaluation-harness (0.4.13), as `--output_path --log_samples` leaves it.

<folder>/<model>/results_<time>.json              figures, configurations and hashes per task
<folder>/<model>/samples_<task>_<time>.jsonl      one line per problem, with all of its samples:
    {"doc_id": 0, "doc": {"problem": ...}, "target": "18", "resps": [["... \\boxed{18}"]], "filtered_resps": ["18"], ...}
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from nemo_ext.records.files import atomic_open, write_json_atomic
from nemo_ext.rows.row import Row, written_solution

FILTER, METRIC = "boxed", "exact_match"
OF_A_SAMPLE = frozenset(
    {
        "sample", "seed", "generation", "generated_solution", "predicted_answer", "is_correct", "verdicts", "finish_reason",
        "reward", "num_prompt_tokens", "num_generated_tokens",
    }
)  # fmt: skip


def write_lm_eval(folder: Path, rows: Iterable[Row], scores: dict[str, Any], time: datetime, code: str) -> list[Path]:
    """The files written, results last.

    Args:
        rows: of an evaluation: a problem's samples one after the other, a benchmark's problems likewise.
        scores: its scores.json.
        time: when the scores were made; names the files.
        code: this repository's version.

    Raises:
        ValueError: a benchmark's rows are in two places.
    """
    folder, stamp = folder / sanitised(scores["model"]), time.strftime("%Y-%m-%dT%H-%M-%S.%f")
    folder.mkdir(parents=True, exist_ok=True)
    paths, found = [], {}
    for task, of_task in groupby(rows, key=lambda row: row["benchmark"]):
        if task in found:
            raise ValueError(f"the rows of {task} are in two places; a benchmark's rows follow each other")
        paths.append(folder / f"samples_{sanitised(task)}_{stamp}.jsonl")
        found[task] = _write_samples(paths[-1], of_task, scores["contract"])
    results = folder / f"results_{stamp}.json"
    write_json_atomic(results, _results(scores, found, time, code))
    return [*paths, results]


def sanitised(model: str) -> str:
    """A model's name as the harness makes a folder of it: what is not a letter, digit or one of . _ - becomes __."""
    return "".join(c if c.isalnum() or c in "._-" else "__" for c in model)


def _write_samples(path: Path, rows: Iterable[Row], contract: dict[str, Any]) -> list[float]:
    """Each problem's share of correct samples."""
    shares = []
    with atomic_open(path) as out:
        for number, sample in enumerate(_samples(rows, contract)):
            out.write(json.dumps(sample | {"doc_id": number}, ensure_ascii=False).encode() + b"\n")
            shares.append(sample[METRIC])
    return shares


def _samples(rows: Iterable[Row], contract: dict[str, Any]) -> Iterator[Row]:
    asked = _generation_kwargs(contract)
    for _, group in groupby(rows, key=lambda row: row["id"]):
        samples = list(group)
        doc = {key: value for key, value in samples[0].items() if key not in OF_A_SAMPLE}
        target = str(samples[0]["expected_answer"])
        yield {
            "doc_id": 0,
            "doc": doc,
            "target": target,
            "arguments": {"gen_args_0": {"arg_0": doc["problem"], "arg_1": asked}},
            "resps": [[written_solution(row) or "" for row in samples]],
            "filtered_resps": [row["predicted_answer"] for row in samples],
            "filter": FILTER,
            "metrics": [METRIC],
            "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
            "prompt_hash": contract["prompt_hash"],
            "target_hash": _hash(target),
            METRIC: sum(row["is_correct"] is True for row in samples) / len(samples),
        }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _generation_kwargs(contract: dict[str, Any]) -> dict[str, Any]:
    sampled = bool(contract["temperature"])
    kwargs = {"until": contract["stop"], "do_sample": sampled, "max_gen_toks": contract["max_tokens"]}
    return kwargs | ({key: contract[key] for key in ("temperature", "top_p", "top_k")} if sampled else {})


def _results(scores: dict[str, Any], found: dict[str, list[float]], time: datetime, code: str) -> dict[str, Any]:
    contract, model = scores["contract"], scores["model"]
    few_shot = contract.get("few_shot") or 0
    return {
        "results": {task: _figures(task, shares, scores["benchmarks"][task]) for task, shares in found.items()},
        "group_subtasks": {task: [] for task in found},
        "configs": {task: _configuration(task, scores) for task in found},
        "versions": dict.fromkeys(found, contract["grader_version"]),
        "n-shot": dict.fromkeys(found, few_shot),
        "higher_is_better": {task: {METRIC: True} for task in found},
        "n-samples": {task: {"original": len(each), "effective": len(each)} for task, each in found.items()},
        "config": {
            "model": contract["server"],
            "model_args": {"model": model, "model_hash": contract["model_hash"]},
            "limit": None,
            "gen_kwargs": _generation_kwargs(contract),
            "random_seed": (contract["seeds"] or [None])[0],
        },
        "git_hash": code,
        "date": time.timestamp(),
        "lm_eval_version": None,
        "task_hashes": dict.fromkeys(found, contract["benchmark_hash"]),
        "model_source": contract["server"],
        "model_name": model,
        "model_name_sanitized": sanitised(model),
        "chat_template_sha": contract["chat_template_hash"],
        "contract": contract,
    }


def _figures(task: str, shares: list[float], scored: dict[str, Any]) -> dict[str, Any]:
    """The harness's own mean and standard error (of the sample, n - 1) and what else was measured."""
    n, mean = len(shares), sum(shares) / len(shares)
    spread = math.sqrt(sum((share - mean) ** 2 for share in shares) / (n - 1) / n) if n > 1 else 0.0
    measured = {f"{name},{FILTER}": each["value"] for name, each in scored.get("metrics", {}).items()}
    figures = {f"{METRIC},{FILTER}": mean, f"{METRIC}_stderr,{FILTER}": spread, **measured}
    return {"name": task, "alias": task, "sample_len": n, **figures}


def _configuration(task: str, scores: dict[str, Any]) -> dict[str, Any]:
    contract = scores["contract"]
    return {
        "task": task,
        "output_type": "generate_until",
        "generation_kwargs": _generation_kwargs(contract),
        "repeats": scores.get("num_samples", 1),
        "num_fewshot": contract.get("few_shot") or 0,
        "filter_list": [{"name": FILTER, "filter": [{"function": contract["extractor"]}]}],
        "metric_list": [{"metric": METRIC, "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"grader": contract.get("grader"), "grader_version": contract["grader_version"]},
    }
