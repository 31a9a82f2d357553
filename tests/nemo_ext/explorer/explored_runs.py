"""Folders such as runs leave them: evaluations with samples, stages with kept and dropped rows."""

import json
from pathlib import Path
from typing import Any

from nemo_ext.explorer.explorer import Options
from nemo_ext.records.files import write_json_atomic

OPTIONS = Options(title="a run", kept_rows=40, dropped_rows=20, max_text_chars=20_000, seed=0)
HOSTILE = (
    'Text <script>window.hit = 1</script></script><img src="x" onerror="window.hit = 2"> <svg onload="window.hit = 3"> '
    '"); window.hit = 4; (" \u2028 `</pre><b>` [x](javascript:window.hit=5) $\\href{javascript:window.hit=6}{x}$ '
    "$\\htmlData{a=b}{x}$ \\includegraphics{http://example.com/x.png} &lt;i&gt; {{ 7 * 7 }}"
)
GENERATION = (
    "First $\\frac{1}{2} + x$, then \\[\\int_0^1 x\\,dx\\] and $5 or $6 in prose, broken $\\frac{1$ too.\n"
    "```python\nprint('<b>1</b>')\n```\nSo the answer is \\boxed{\\sqrt{2}}."
)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def finish(folder: Path, uses: str, kept: int, dropped: dict[str, int] | None = None, seconds: float = 1.0) -> None:
    counts = {"rows_in": kept + sum((dropped or {}).values()), "rows_out": kept, "dropped": dropped or {}}
    write_json_atomic(folder / "manifest.json", {"stage": folder.name, "uses": uses, "seconds": seconds, **counts})
    write_json_atomic(folder / "_DONE", {})


def sample(number: int, index: int, is_correct: bool, **more: Any) -> dict[str, Any]:
    """Sample `index` of problem `number`, whose answer is its number."""
    answer = str(number) if is_correct else str(number + 1)
    row = {
        "benchmark": "toy" if number % 3 else "other", "id": str(number), "problem": f"What is ${number} + 0$? Word{number}.",
        "expected_answer": str(number), "level": number % 5 + 1, "subject": "Algebra" if number % 2 else "Geometry",
        "solution": f"It is $\\boxed{{{number}}}$.", "sample": index, "seed": index, "generation": f"I say \\boxed{{{answer}}}.",
        "predicted_answer": answer, "is_correct": is_correct, "verdicts": {"symbolic": is_correct, "judge": is_correct},
        "finish_reason": "stop", "num_prompt_tokens": 9, "num_generated_tokens": 20 + index,
    }  # fmt: skip
    return row | more


def write_evaluation(folder: Path, model: str, rows: list[dict[str, Any]], max_tokens: int = 64) -> None:
    write_lines(folder / "output.jsonl", rows)
    contract = {"prompt_hash": "p", "max_tokens": max_tokens, "model_hash": model}
    write_json_atomic(folder / "scores.json", {"model": model, "step": None, "contract": contract, "benchmarks": {}})
    finish(folder, "evaluate", len(rows))


def write_run(run: Path, problems: int = 60, samples: int = 5) -> Path:
    """Two models: `base` is right on sample 0 alone, `tuned` on all but sample 0 of every tenth problem."""
    base = [sample(n, s, s == 0) for n in range(problems) for s in range(samples)]
    base[samples] |= {"generation": HOSTILE, "problem": base[samples]["problem"]}
    base[2 * samples] |= {"generation": GENERATION, "verdicts": {"symbolic": True, "judge": False}}
    base[3 * samples + 1] |= {"predicted_answer": None, "finish_reason": "length"}
    tuned = [sample(n, s, bool(s or n % 10)) for n in range(problems) for s in range(samples)]
    write_evaluation(run / "evaluate" / "base", "base", base)
    write_evaluation(run / "evaluate" / "tuned", "tuned", tuned, max_tokens=128)
    kept = [{"id": f"k{n}", "problem": f"Kept ${n}$", "generation": f"{n} is \\boxed{{{n}}}"} for n in range(300)]
    dropped = [
        {"id": f"d{n}", "problem": HOSTILE if n == 0 else f"Dropped {n}", "reason": "too_long" if n % 4 else "no_box"}
        for n in range(100)
    ]
    write_lines(run / "filter" / "output.jsonl", kept)
    write_lines(run / "filter" / "dropped.jsonl", dropped)
    finish(run / "filter", "filter", 300, {"too_long": 75, "no_box": 25})
    return run
