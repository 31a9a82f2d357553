"""prepare_sft with two workers: rows and tokens per second and memory, on rows of about 400 tokens made here.

Peer, in the same run: the loop most scripts have, one process, `apply_chat_template` for the prompt and for the whole,
Python lists of ids and mask kept in memory. Its tokenizer is loaded before the clock starts; the stage's figures are
those of the whole command, from its start to its manifest.

`make bench ONLY=prepare` takes 100,000 rows; `python -m tests.bench.bench_prepare 1000000` as many as it says.
"""

import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from transformers import AutoTokenizer

from nemo_ext.rows.row import Row, dumps
from recipes.stages.toy import tiny_model
from tests.conftest import ROOT

NUM_ROWS, WORKERS, PEER_ROWS, TOKENIZER_ROWS = 100_000, 2, 3000, 8000
MEMORY_TARGET_MIB = 2048
USER = "Solve the following math problem. Put the final answer in \\boxed{{}}.\n\n{problem}"


def rows() -> Iterator[Row]:
    """Words of a Zipf-distributed vocabulary with numbers and formulas between them."""
    draw = random.Random(0)
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "ing", "ou", "ter")]
    words = ["".join(draw.choices(syllables, k=draw.randrange(1, 5))) for _ in range(60_000)]
    weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(len(words))))

    def sentence() -> str:
        text = " ".join(draw.choices(words, cum_weights=weights, k=draw.randrange(6, 16)))
        return (
            f"{text.capitalize()}, so {draw.randrange(1000)} \\times {draw.randrange(100)} = {draw.randrange(10**5)}."
        )

    sentences = [sentence() for _ in range(30_000)]
    for index in itertools.count():
        answer = draw.randrange(10**4)
        yield {
            "problem": f"{index}. " + " ".join(draw.choices(sentences, k=draw.randrange(1, 5))),
            "generated_solution": " ".join(draw.choices(sentences, k=draw.randrange(2, 17))) + f" \\boxed{{{answer}}}",
            "expected_answer": str(answer),
            "problem_source": "augmented_math",
        }


def run(num_rows: int = NUM_ROWS) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = _tokenizer(folder)
        with (folder / "rows.jsonl").open("wb") as handle:
            handle.writelines(dumps(row) + b"\n" for row in itertools.islice(rows(), num_rows))
        config = {
            "uses": "prepare_sft", "name": "prepare_sft", "output_dir": str(folder / "out"),
            "input": str(folder / "rows.jsonl"), "workers": WORKERS, "seq_length": 4096, "validation_fraction": 0.05,
            "model": {"name": "bench", "hf_path": model, "context_length": 4096},
            "prompt": {"name": "bench", "template": "chat", "user": USER.replace("{{}}", "{}")},
        }  # fmt: skip
        (folder / "out").mkdir()
        (folder / "out" / "config.yaml").write_text(json.dumps(config))
        seconds, cpu_seconds, peak = _stage(folder / "out" / "config.yaml")
        tokens = json.loads((folder / "out" / "manifest.json").read_text())["tokens"]["samples"]
        peer_rows, peer_tokens, peer_cpu_rows = _plain_loop(model)
    yield _row(f"prepare {num_rows} rows, {WORKERS} workers", num_rows / seconds, "rows/s", None, peer_rows)
    yield _row("prepare tokens", tokens / seconds, "tokens/s", None, peer_tokens)
    yield _row("prepare rows per CPU second, all processes", num_rows / cpu_seconds, "rows/s", None, peer_cpu_rows)
    yield _row("prepare tokens per row", tokens / num_rows, "tokens", None, None)
    yield _row("prepare peak memory, all processes", peak, "MiB RSS", MEMORY_TARGET_MIB, None)


def _row(name: str, value: float, unit: str, target: float | None, peer: float | None) -> dict[str, Any]:
    return {
        "name": name, "value": round(value, 1), "unit": unit, "target": target, "peer": peer and round(peer, 1),
        "ratio": peer and round(value / peer, 2),
    }  # fmt: skip


def _tokenizer(folder: Path) -> str:
    """A byte-level BPE of 32,000 tokens with Llama-3's special tokens and template, trained on such rows."""
    (folder / "corpus").mkdir()
    with (folder / "corpus" / "output.jsonl").open("wb") as handle:
        for row in itertools.islice(rows(), TOKENIZER_ROWS):
            handle.write(dumps({"text": row["problem"] + row["generated_solution"]}) + b"\n")
    tiny_model.run(
        tiny_model.Config(
            name="tiny_model", uses="tiny_model", output_dir=str(folder), inputs=[str(folder / "corpus")],
            vocab_size=32_000, hidden_size=32, num_layers=1, num_attention_heads=4, num_query_groups=2,
            ffn_hidden_size=64, context_length=4096,
        )
    )  # fmt: skip
    return str(folder / "hf")


def _stage(config: Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds and the peak MiB of all its processes together; pages they share are counted in each."""
    started, cpu_started = time.perf_counter(), _cpu_of_children()
    stage = subprocess.Popen([sys.executable, "-m", "recipes.run_stage", str(config)], cwd=ROOT)
    peak = 0
    while stage.poll() is None:
        peak = max(peak, _memory(psutil.Process(stage.pid)))
        time.sleep(0.1)
    assert stage.returncode == 0, "the stage's error is above"
    return time.perf_counter() - started, _cpu_of_children() - cpu_started, peak / 2**20


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _memory(process: psutil.Process) -> int:
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:  # it ended between the listing and the question
            continue
    return total


def _plain_loop(model: str) -> tuple[float, float, float]:
    """Rows and tokens per second, rows per CPU second."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    some = list(itertools.islice(rows(), PEER_ROWS))
    kept: list[tuple[list[int], list[int]]] = []
    started, cpu_started = time.perf_counter(), time.process_time()
    for row in some:
        asked = [{"role": "user", "content": USER.format(problem=row["problem"])}]
        answered = [*asked, {"role": "assistant", "content": row["generated_solution"]}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        whole = tokenizer.apply_chat_template(answered, return_dict=False)
        kept.append((whole, [0] * len(prompt) + [1] * (len(whole) - len(prompt))))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return len(kept) / seconds, sum(len(ids) for ids, _ in kept) / seconds, len(kept) / cpu_seconds


if __name__ == "__main__":
    for figure in run(int(sys.argv[1])):
        print(json.dumps(figure), flush=True)
