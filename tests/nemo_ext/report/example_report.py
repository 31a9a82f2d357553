"""A whole report, section by section, and text that tries to break out of it."""

from typing import Any

HOSTILE = '<script>alert(1)</script> "quoted" & $x^2$ {{ 7 * 7 }} \\boxed{<b>5</b>}'


def model(name: str, correct: int, low: float, high: float, benchmark: str = "toy") -> dict[str, Any]:
    scores = {
        "correct": correct,
        "total": 200,
        "accuracy": correct / 200,
        "low": low,
        "high": high,
        "no_answer": 3,
        "truncated": 1,
        "spread": 0.013,
        "verdicts": {"symbolic": 0.5, "judge": 0.75, "both": 0.375, "either": 0.875},
    }
    return {"model": name, "benchmark": benchmark} | scores


def point(
    model: str, x: float | None, correct: int, series: str = "", published: float | None = None
) -> dict[str, Any]:
    scores = {
        "correct": correct,
        "total": 200,
        "accuracy": correct / 200,
        "low": correct / 250,
        "high": min(1.0, correct / 170),
    }
    return {"model": model, "x": x, "series": series, "published": published} | scores


ABLATIONS = {
    "lines": {
        "x": "noisy rows, %", "log": False, "source": "",
        "points": [point("clean", 0, 150, "mispaired"), point("m80", 80, 30, "mispaired"), point("w80", 80, 99, "wrong")],
    },
    "log": {"x": "rows", "log": True, "source": "", "points": [point("1M", 1e6, 90), point("all", 14e6, 120)]},
    "names": {"x": "format", "log": False, "source": "a paper", "points": [point("a", None, 0), point("b", None, 200, "", 44.5)]},
}  # fmt: skip


def comparison(name: str) -> dict[str, Any]:
    found = {
        "points": -4.1, "low": -9.0, "high": 0.8, "gained": 12, "lost": 20, "p": 0.21, "p_holm": 0.42, "detectable": 7.6,
    }  # fmt: skip
    return {"first": name, "rows": [{"second": name, "benchmarks": {name: found}}], "refused": []}


def _scored(value: float) -> dict[str, float]:
    return {"accuracy": value, "low": value - 0.05, "high": value + 0.05}


SCORES: dict[str, Any] = {
    "leaderboard": {
        "benchmarks": ["toy", "toy-hard"],
        "rows": [
            {"model": "average", "problems": 400, **_scored(0.7), "scores": [_scored(0.9), _scored(0.5)], "apart": ""},
            {"model": "base", "problems": 400, **_scored(0.1), "scores": [_scored(0.1), _scored(0.1)], "apart": ""},
            {"model": "teacher", "problems": 400, **_scored(0.8), "scores": [_scored(0.8), _scored(0.8)], "apart": "stop"},
        ],
    },
    "comparisons": comparison("average") | {"refused": [{"model": "teacher", "terms": "max_tokens, stop"}]},
    "breakdown": [
        {"benchmark": "math", "kind": "level", "labels": ["1", "5"],
         "models": {"base": [_scored(0.4), None], "average": [_scored(0.8), _scored(0.3)]}},
    ],
    "checkpoints": {
        "points": [{"step": 100, **_scored(0.5), "against": {"points": -10.0, "low": -14.2, "high": -5.8, "p_holm": 0.0004}},
                   {"step": 200, **_scored(0.6), "against": None}, {"step": 300, **_scored(0.7), "against": None}],
        "average": _scored(0.62), "best": 200, "alike": 1,
    },
    "published": [
        {"model": "OpenMath2", "benchmark": "gsm8k", "score": 91.7, "problems": 1319, "metric": "greedy", "grader": "judge",
         "source": "a paper", "note": "", "ours": {"accuracy": 0.9, "low": 0.88, "high": 0.92}, "apart": []},
        {"model": "OpenMath2", "benchmark": "math", "score": 67.8, "problems": 5000, "metric": "majority@64", "grader": None,
         "source": "a paper", "note": "lr", "ours": None, "apart": ["not evaluated here"]},
    ],
    "explorers": [{"stage": "explore", "page": "explore/index.html"}],
}  # fmt: skip


def strategy_row(source: str | None, strategy: str | None, problems: int, **figures: Any) -> dict[str, Any]:
    """A row of coverage.json whose samples, correct ones and solved problems are 1,000, 400 and 93.04 % of the problems."""
    blocks = {"0": 60, "1": 330, "2+": 8, "malformed": 2}
    dropped = {"solve": {}, "grade": {"no_generation": 3}, "filter": {"incorrect": 540, "broken_code": 37}}
    return {
        "source": source, "strategy": strategy, "problems": problems, "samples": 1000, "not_asked": {}, "correct": 400,
        "correct_percent": 40.0, "unique_correct": 390, "solved": 6978, "coverage": 93.04, "solved_so_far": 6990,
        "coverage_so_far": 93.2, "kept": {"solve": 1000, "grade": 997, "filter": 420}, "kept_percent": 42.0, "dropped": dropped,
        "code_blocks": {"correct": blocks, "kept": dict.fromkeys(blocks, 0)}, "executions": 950,
        "errors": {"error": 40, "timeout": 3}, "ended": {"answer": 900, "error": 43, "length": 57},
        "published": None, "published_so_far": None,
    } | figures  # fmt: skip


COVERAGE: list[dict[str, Any]] = [
    {
        "stage": "coverage", "stages": ["solve", "grade", "filter"], "unreadable": {"malformed_json": 2}, "published": "a paper",
        "has_duplicates": True, "published_blocks": {"0": 16.4, "1": 81.7, "2+": 2.0},
        "published_elsewhere": [{"source": "math", "strategies": ["masked", "hinted"], "coverage": 87.5, "unique": 227_000}],
        "groups": [
            {"source": "math", "rows": [
                strategy_row("math", "default", 7500, published={"coverage": 80.1, "unique": 177_000}),
                strategy_row("math", "masked", 7500, not_asked={"missing_masked_solution": 3}, published_so_far={"coverage": 85.1}),
                strategy_row("math", "subject", 7500, samples=0, coverage=None, correct=0, errors={}, ended={}, executions=0,
                          dropped={"solve": {}, "grade": {}, "filter": {}}, kept={"solve": 0, "grade": 0, "filter": 0}),
                strategy_row("math", None, 7500, published={"coverage": 93.04, "unique": 1_040_000}),
            ]},
            {"source": None, "rows": [strategy_row(None, None, 14_973)]},
        ],
    },
]  # fmt: skip

RUN: dict[str, Any] = {
    "coverage": COVERAGE,
    "ablation": ABLATIONS["lines"],
    "title": "openmathinstruct2 at scale tiny",
    "subtitle": "2 cores, 21 Nov 2026, 31 minutes",
    "warnings": ["24 grading pairs ran out of time and count as wrong."],
    "summary": [
        {"label": "Accuracy, averaged model", "value": "87.5 %", "note": "from 12.0 % before fine-tuning"},
        {"label": "Training rows", "value": "18,204", "note": "of 41,300 generated"},
        {"label": "New problems", "value": "1,968"},
        {"label": "Wall clock", "value": "31 min", "note": "on 2 CPU cores"},
    ],
    "accuracy": [
        model("base", 24, 0.08, 0.172),
        model("fine-tuned, last", 171, 0.8, 0.897),
        model("fine-tuned, mean of 6", 175, 0.822, 0.914),
        model("base", 11, 0.031, 0.096, "toy-hard"),
        model("fine-tuned, last", 96, 0.412, 0.549, "toy-hard"),
        model("fine-tuned, mean of 6", 104, 0.451, 0.588, "toy-hard"),
    ],
    "training": {
        "steps": list(range(1, 201)),
        "loss": [0.2 + 2.5 / (1 + step / 12) for step in range(200)],
        "lr": [1e-3 * min(1, step / 20) for step in range(200)],
        "validation": [{"step": step, "loss": 0.25 + 2.4 / (1 + step / 12)} for step in (50, 100, 150, 200)],
        "figures": {
            "reward_margin": {
                "training": [{"step": step, "value": step / 100} for step in range(1, 201)],
                "validation": [{"step": step, "value": step / 110} for step in (50, 100, 150, 200)],
            }
        },
    },
    "funnel": [
        {"stage": "generate", "rows_in": 41300, "rows_out": 41298, "dropped": {"request_failed": 2}},
        {"stage": "grade", "rows_in": 41298, "rows_out": 41298, "dropped": {}},
        {
            "stage": "filter",
            "rows_in": 41298,
            "rows_out": 26110,
            "dropped": {"incorrect": 12904, "no_answer": 1601, "truncated": 512, "incorrect_arithmetic": 171},
        },
        {"stage": "downsample", "rows_in": 26110, "rows_out": 18204, "dropped": {"not_sampled": 7906}},
    ],
    "decontamination": {
        "toy": {"contaminated": 31, "checked": 1999},
        "gsm8k": {"contaminated": 0, "checked": 1999},
        "recall": 0.97,
        "precision": 1.0,
        "examples": [{"problem": "Ben has 3 pens.", "benchmark_problem": "Ava has 3 pens.", "score": 0.91}],
    },
    "samples": [
        {"stage": "filter", "rows": [{"problem": "What is 3 * 4?", "generation": "3 * 4 = 12.\n\\boxed{12}"}]},
        {"stage": "generate", "rows": [{"problem": HOSTILE, "generation": HOSTILE, "seed": 3}, {"id": 1}]},
    ],
    "resources": [
        {"stage": "generate", "seconds": 612.4, "prompt_tokens": 1_204_000, "generated_tokens": 2_310_400},
        {"stage": "train", "seconds": 703, "peak_memory_gb": 1.9},
    ],
    "differences": [{"key": "train.lr", "ours": 1e-3, "paper": 5e-6, "source": "OpenMathInstruct-2, section 4"}],
    "lineage": [
        {
            "stage": "train",
            "config_hash": "5f3c" * 16,
            "code_version": "9a7be21c40",
            "inputs": ["runs/tiny/prepare/packed"],
            "outputs": [{"path": "runs/tiny/train/hf", "rows": None, "sha256": "ab" * 32}],
            "models": {"student": "toy"},
            "seeds": [0],
        }
    ],
}


def whole_report() -> dict[str, Any]:
    return RUN | SCORES
