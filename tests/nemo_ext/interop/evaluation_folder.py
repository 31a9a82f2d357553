"""A small evaluation's folder, made by hand: two benchmarks, two samples of each problem."""

import json
from pathlib import Path
from typing import Any

CONTRACT = {
    "benchmark_hash": "ab", "prompt_hash": "cd", "chat_template_hash": "ef", "stop": ["<eot>"], "max_tokens": 64, "temperature": 0.7,
    "top_p": 0.95, "top_k": 0, "seeds": [0, 1], "extractor": "boxed", "grader_version": "g1", "server": "embedded torch 2.13.0",
    "model_hash": "12", "num_samples": 2,
}  # fmt: skip


def rows(samples: int = 2) -> list[dict[str, Any]]:
    return [
        {
            "benchmark": benchmark,
            "id": str(number),
            "problem": f"What is {number} + 1? π",
            "expected_answer": str(number + 1),
            "level": 3,
            "sample": sample,
            "seed": sample,
            "generation": f"It is \\boxed{{{number + 1 + sample}}}.",
            "predicted_answer": str(number + 1 + sample),
            "is_correct": sample == 0,
            "verdicts": {"symbolic": sample == 0, "judge": number == 1},
            "finish_reason": "stop",
            "num_prompt_tokens": 9,
            "num_generated_tokens": 5 + sample,
        }
        for benchmark, count in (("gsm8k", 3), ("amc23", 2))
        for number in range(count)
        for sample in range(samples)
    ]


def scores(samples: int = 2) -> dict[str, Any]:
    def scored(problems: int) -> dict[str, Any]:
        metrics = {"pass@1": {"value": 1 / samples}, f"pass@{samples}": {"value": 1.0}}
        total = problems * samples
        known = {"problems": problems, "samples": total, "total": total, "correct": problems, "accuracy": 1 / samples}
        return known | {"low": 0.1, "high": 0.9, "no_answer": 0, "no_answer_rate": 0.0, "metrics": metrics}

    contract = CONTRACT | {"num_samples": samples}
    return {"model": "nvidia/my model", "contract": contract, "num_samples": samples,
            "benchmarks": {"gsm8k": scored(3), "amc23": scored(2)}}  # fmt: skip


def write(folder: Path, samples: int = 2) -> Path:
    folder.mkdir(parents=True)
    (folder / "output.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(samples)))
    (folder / "scores.json").write_text(json.dumps(scores(samples)))
    return folder
