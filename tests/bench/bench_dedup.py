"""Exact and near duplicates of 1,000,000 problems, as the stage runs; what it finds of those planted, and what it takes wrongly.

The problems are two of GSM8K's, one after the other, with other numbers. Planted: copies; near copies (a word replaced, a name
changed, other punctuation and case); and traps, which differ in one number or in one word that turns the question round.
"""

import json
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_ext.curation.duplicates.problem_sketch import NUM_PERMUTATIONS, normalised, signatures, telling, told
from tests.bench.stage_runs import orjson_seconds, run_stage, write_stage_output

DATA = Path(__file__).parents[3] / "shared" / "data" / "gsm8k_train.jsonl"
NEEDS = (DATA,)
NUM_ROWS = 1_000_000
WORKERS = 2
REMEMBERED = 50_000  # problems that copies are made of
SKETCHED = 2000  # problems that datasketch gets
TURNED = {"more": "less", "less": "more", "first": "last", "half": "double", "total": "difference", "each": "both"}
NUMBER = re.compile(r"\d+")
THRESHOLD = 0.8


def make_rows(num: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(0)
    questions = [json.loads(line)["question"] for line in DATA.read_text().splitlines()]
    recent: list[tuple[int, str]] = []
    for index in range(num):
        draw = rng.random()
        kind = "copy" if draw < 0.02 else "near" if draw < 0.05 else "trap" if draw < 0.08 else "new"
        if kind == "new" or len(recent) < 1000:
            both = f"{rng.choice(questions)} {rng.choice(questions)}"
            text, kind, original = NUMBER.sub(lambda _: str(rng.randint(2, 999)), both), "new", index
            if len(recent) < REMEMBERED:
                recent.append((index, text))
            else:
                recent[index % REMEMBERED] = (index, text)
        else:
            original, text = rng.choice(recent)
            text = {"copy": _copy, "near": _near, "trap": _trap}[kind](text, rng)
        yield {"id": index, "problem": text, "kind": kind, "original": original}


def _copy(text: str, rng: random.Random) -> str:
    return f" {text}\n"


def _near(text: str, rng: random.Random) -> str:
    """One of: another name, a word replaced, other case and punctuation, a word put in."""
    words = text.split()
    plain = [i for i, word in enumerate(words) if word.isalpha() and len(word) > 3 and not telling(word.lower())]
    place = rng.choice(plain)
    kind = rng.randrange(4)
    if kind == 0:
        return text.replace(words[place], "Zoe")
    if kind == 1:
        words[place] = "indeed"
    elif kind == 2 and _told(text.upper()) == _told(text):
        return (
            text.upper().replace(".", " .").replace(",", "")
        )  # a letter that is a name cannot be told among capitals
    else:
        words.insert(place, "now")
    return " ".join(words)


def _told(text: str) -> tuple[str, ...]:
    return told(text, normalised(text))


def _trap(text: str, rng: random.Random) -> str:
    for word, other in TURNED.items():
        if word in ("total", "each"):
            break
        if f" {word} " in text and rng.random() < 0.5:
            return text.replace(f" {word} ", f" {other} ", 1)
    number = rng.choice(list(NUMBER.finditer(text)) or [None])
    if number is None:
        return f"{text} What if there were 7 of them?"
    return f"{text[: number.start()]}{int(number[0]) + 1}{text[number.end() :]}"


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = write_stage_output(folder / "rows", make_rows(NUM_ROWS))
        keys = {"input": str(source.parent), "near": True, "threshold": THRESHOLD, "workers": WORKERS}
        ran = run_stage(folder / "out", "deduplicate", keys)
        dropped = [
            json.loads(line) for path in sorted((folder / "out").glob("dropped*.jsonl")) for line in path.open()
        ]
        peer = orjson_seconds(source) / 60
        kinds = [json.loads(line)["kind"] for line in source.open()]
    size = NUM_ROWS / 1e6
    passes = {"peer": round(peer, 4), "ratio": round(ran.seconds / 60 / peer, 1)}  # of orjson over the same bytes
    yield _figure("dedup_1m", ran.seconds / 60, "min", f"<= {5 * size:g}") | passes
    yield _figure("dedup_1m_cpu", ran.cpu_seconds / 60, "CPU min", None)
    yield _figure("dedup_1m_memory", ran.peak_bytes / 1e9, "GB", "<= 3")
    planted, found = Counter(kinds), Counter(row["kind"] for row in dropped)
    for kind in ("copy", "near"):
        yield _figure(f"dedup_1m_{kind}_found", 100 * found[kind] / planted[kind], "% of those planted", ">= 95")
    # two traps made of one problem may be the same trap
    wrong = [row for row in dropped if row["kind"] in ("trap", "new") and kinds[row["duplicate_of"]] != "trap"]
    yield _figure(
        "dedup_1m_wrongly_dropped", 1e6 * len(wrong) / (planted["trap"] + planted["new"]), "of a million", None
    )
    yield _sketches()


def _sketches() -> dict[str, Any]:
    """Signatures a second: ours against datasketch's, which is given the same pieces of text."""
    from datasketch import MinHash

    texts = [normalised(row["problem"]) for row in make_rows(SKETCHED)]
    pieces = [{text.encode()[i : i + 5] for i in range(len(text.encode()) - 4)} for text in texts]
    signatures(texts[:1])  # imports rensa
    start = time.perf_counter()
    signatures(texts)
    ours = SKETCHED / (time.perf_counter() - start)
    start = time.perf_counter()
    MinHash.bulk(pieces, num_perm=NUM_PERMUTATIONS)
    peer = SKETCHED / (time.perf_counter() - start)
    return {"name": "minhash_sketches", "value": round(ours), "unit": "problems/s, against datasketch", "target": None,
            "peer": round(peer), "ratio": round(ours / peer, 1)}  # fmt: skip


def _figure(name: str, value: float, unit: str, target: str | None) -> dict[str, Any]:
    return {"name": name, "value": round(value, 3), "unit": unit, "target": target}
