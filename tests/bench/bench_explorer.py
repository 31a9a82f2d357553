"""The explorer of 5,000 problems with 64 samples each: time and memory to write it, and what a browser then takes.

The peer of writing is reading the rows once; those of the browser's figures are their limits.
"""

import json
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.stage_runs import orjson_seconds, run_stage
from tests.nemo_ext.explorer.chromium import PATH, Page, chromium

PROBLEMS, SAMPLES, SENTENCES = 5000, 64, 12
MEMORY_MB, FIRST_PAINT_MS, FILE_BYTES = 500, 1000, 1_000_000
WORDS = [
    "we",
    "have",
    "then",
    "so",
    "the",
    "of",
    "and",
    "that",
    "is",
    "sum",
    "value",
    "angle",
    "number",
    "triangle",
    "term",
    "equation",
    "root",
    "therefore",
]


def _generation(chance: random.Random, answer: str) -> str:
    """Some 1,500 characters with formulas."""
    sentences = []
    for _ in range(SENTENCES):
        words = " ".join(chance.choices(WORDS, k=14))
        a, b, c = (chance.randint(2, 999) for _ in range(3))
        sentences.append(f"{words} $\\frac{{{a}}}{{{b}}} + x^{{{c % 9}}} = {a * c}$.")
    return "\n".join([*sentences, f"The answer is $\\boxed{{{answer}}}$."])


def _rows() -> Iterator[dict[str, Any]]:
    chance = random.Random(0)
    for number in range(PROBLEMS):
        skill = chance.random()
        problem = (
            f"Problem {number}: "
            + " ".join(chance.choices(WORDS, k=28))
            + f" $x^2 - {number}x = {chance.randint(1, 99)}$?"
        )
        for sample in range(SAMPLES):
            right = chance.random() < skill
            answer = str(number) if right else str(number + chance.randint(1, 6))
            yield {
                "benchmark": "math", "id": str(number), "problem": problem, "expected_answer": str(number), "level": number % 5 + 1,
                "subject": WORDS[number % 7], "sample": sample, "seed": sample, "generation": _generation(chance, answer),
                "predicted_answer": answer, "is_correct": right, "verdicts": {"symbolic": right, "judge": right},
                "finish_reason": "stop", "num_prompt_tokens": 80, "num_generated_tokens": 500,
            }  # fmt: skip


def _evaluation(folder: Path) -> Path:
    folder.mkdir(parents=True)
    with (folder / "output.jsonl").open("w") as handle:
        for row in _rows():
            handle.write(json.dumps(row) + "\n")
    (folder / "scores.json").write_text('{"model": "average", "benchmarks": {}}')
    (folder / "manifest.json").write_text(
        '{"uses": "evaluate", "seconds": 1, "rows_in": null, "rows_out": null, "dropped": {}}'
    )
    (folder / "_DONE").write_text("{}")
    return folder / "output.jsonl"


def run() -> Iterator[dict[str, Any]]:
    place = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        rows = _evaluation(place / "run" / "evaluate")
        read = orjson_seconds(rows)
        ran = run_stage(place / "explore", "explore", {"inputs": [str(place / "run")], "title": "bench"})
        name = f"explorer_{PROBLEMS}x{SAMPLES}"
        figures = ran.manifest["figures"]
        yield _figure(f"{name}_write", ran.seconds, "s", None, read)
        yield _figure(f"{name}_write_cpu", ran.cpu_seconds, "s", None, read)
        yield _figure(f"{name}_write_memory", ran.peak_bytes / 1e6, "MB", MEMORY_MB, MEMORY_MB)
        yield _figure(f"{name}_folder", figures["bytes"] / 1e6, "MB", None, rows.stat().st_size / 1e6)
        largest = max(path.stat().st_size for path in (place / "explore").rglob("*") if path.is_file())
        yield _figure(f"{name}_largest_file", largest, "bytes", FILE_BYTES, FILE_BYTES)
        if PATH is not None:
            with chromium(place / "profile") as page:
                yield from _in_browser(page, place / "explore", name)
    finally:
        shutil.rmtree(place)


def _in_browser(page: Page, folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Each figure in a browser that has not had the page before."""
    page.open(folder / "index.html")
    paint = page.run(
        "performance.getEntriesByType('paint').find((each) => each.name === 'first-contentful-paint').startTime"
    )
    listed = page.run("performance.getEntriesByName('explorer-listed')[0].startTime")
    yield _figure(f"{name}_first_paint", paint, "ms", FIRST_PAINT_MS, FIRST_PAINT_MS)
    yield _figure(f"{name}_all_listed", listed, "ms", None, None)
    clock = "performance.now()"
    search = page.run(
        f"(() => {{ const start = {clock}; location.replace('#view=problems&q=angle+4999'); explorer.problems.show(explorer.state.read()); return {clock} - start; }})()"
    )
    yield _figure(f"{name}_search", search, "ms", None, None)
    page.open(folder / "index.html")
    page.run(f"window.begun = {clock}; location.hash = '#view=problems&open=math/4321'")
    page.until("document.querySelector('.generation .katex')")
    yield _figure(f"{name}_open_problem", page.run(f"{clock} - window.begun"), "ms", None, None)
    asked = [Path(each.removeprefix("file://").split("#")[0]) for each in page.requested() if each.startswith("file:")]
    yield _figure(
        f"{name}_largest_request", max(path.stat().st_size for path in asked), "bytes", FILE_BYTES, FILE_BYTES
    )


def _figure(name: str, value: float, unit: str, target: float | None, peer: float | None) -> dict[str, Any]:
    ratio = None if peer is None else round(value / peer, 3)
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "target": target,
        "peer": peer and round(peer, 2),
        "ratio": ratio,
    }


if __name__ == "__main__":
    for figure in run():
        print(json.dumps(figure))
