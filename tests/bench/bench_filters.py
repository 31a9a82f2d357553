"""The paper's SFT filter chain on 100,000 rows, as its two stages run it: processes started, tokenizer loaded, files written.

The rows are made of GSM8K's solutions and OpenAI's model solutions, one to four of them each and now and then eighteen, with
edits that make about 42 % of them fall; the tokenizer is a BPE of 28,000 trained on the same texts. The peer is one pass of orjson over the bytes.
"""

import json
import random
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.stage_runs import StageRun, orjson_seconds, run_stage, write_stage_output

DATA = Path(__file__).parents[3] / "shared" / "data"
NEEDS = (DATA / "gsm8k_train.jsonl",)
NUM_ROWS = 100_000
VOCABULARY = 28_000
WORKERS = 2
STEPS = [
    {"name": "multiple_boxes"},
    {"name": "trim_prefix"},
    {"name": "trim_after_answer"},
    {"name": "incorrect_arithmetic", "params": {"rel_tol": 1e-4}},
    {"name": "problem_too_long", "params": {"max_tokens": 1024}},
    {"name": "solution_too_long", "params": {"max_tokens": 1024}},
    {"name": "solution_too_short", "params": {"min_chars": 200}},
]
ANNOTATION = re.compile(r"<<[^<>]*>>")


def texts() -> tuple[list[str], list[str]]:
    """Problems, and solutions without their answers."""
    train = [json.loads(line) for line in (DATA / "gsm8k_train.jsonl").read_text().splitlines()]
    model = [json.loads(line) for line in (DATA / "gsm8k_model_solutions.jsonl").read_text().splitlines()]
    solutions = [row["answer"].partition("####")[0] for row in train]
    solutions += [
        each["solution"].partition("A:")[0] for row in model for each in row.values() if isinstance(each, dict)
    ]
    return [row["question"] for row in train], [ANNOTATION.sub("", text).strip() for text in solutions]


def make_rows(num: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(0)
    problems, solutions = texts()
    made: list[dict[str, Any]] = []
    for index in range(num):
        draw = rng.random()
        if draw < 0.08 and made:
            yield made[-rng.randint(1, len(made))]
            continue
        count = 18 if draw < 0.09 else 1 if draw < 0.5 else rng.choice([1, 2, 2, 2, 3, 4])
        body = "\n".join(rng.choice(solutions) for _ in range(count))
        text = f"{body}\nThe answer is $\\boxed{{{rng.randint(1, 999)}}}$."
        if draw > 0.85:
            text = f"$\\boxed{{{rng.randint(1, 99)}}}$ is a first guess.\n{text}"
        elif draw > 0.65:
            text = f"My solution:\n{text}\n\nProblem:\nAnother one follows here."
        row = {
            "id": f"{index:08x}", "problem": rng.choice(problems), "expected_answer": "1", "problem_source": "gsm8k",
            "generation": text, "finish_reason": "stop", "predicted_answer": "1", "is_correct": True,
        }  # fmt: skip
        made = [*made[-200:], row]
        yield row


def train_tokenizer(folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((text for part in texts() for text in part), trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(folder)


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train_tokenizer(folder / "tokenizer")
        source = write_stage_output(folder / "rows", make_rows(NUM_ROWS))
        peer = orjson_seconds(source)
        model = {"name": "bench", "hf_path": str(folder / "tokenizer"), "context_length": 4096}
        keys = {"input": str(source.parent), "steps": STEPS, "model": model, "workers": WORKERS}
        runs = [run_stage(folder / "filter", "filter", keys)]
        keys = {"input": str(folder / "filter"), "workers": 1}
        runs.append(run_stage(folder / "deduplicate", "deduplicate", keys))
        yield from _figures(runs, peer)
        yield _figure("filter_chain_100k_input", source.stat().st_size / NUM_ROWS, "bytes a row", None, None)


def _figures(runs: list[StageRun], peer: float) -> Iterator[dict[str, Any]]:
    seconds = sum(each.seconds for each in runs)
    yield _figure("filter_chain_100k", seconds, "s", "<= 8", peer)
    yield _figure("filter_chain_100k_cpu", sum(each.cpu_seconds for each in runs), "CPU s", None, peer)
    yield _figure("filter_chain_100k_filter_alone", runs[0].seconds, "s", None, peer)
    yield _figure("filter_chain_100k_memory", max(each.peak_bytes for each in runs) / 1e6, "MB", "<= 500", None)
    kept = runs[-1].manifest["rows_out"]
    yield _figure("filter_chain_100k_kept", 100 * kept / NUM_ROWS, "% of the rows", None, None)
    tokenised = runs[0].manifest["figures"]["texts_tokenised"]
    yield _figure("filter_chain_100k_texts_tokenised", 100 * tokenised / (2 * NUM_ROWS), "% of the texts", None, None)


def _figure(name: str, value: float, unit: str, target: str | None, peer: float | None) -> dict[str, Any]:
    """The ratio is how many times one pass of orjson over the input takes."""
    ratio = round(value / peer, 2) if peer else None
    return {"name": name, "value": round(value, 2), "unit": unit, "target": target,
            "peer": round(peer, 3) if peer else None, "ratio": ratio}  # fmt: skip
