"""Data, a test file and a model as others publish them: several layouts and forms of file, and more tokens than embeddings."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nemo_ext.toy.sources import benchmark, solved
from tests.conftest import ROOT

TINY = ROOT / "nemo_ext" / "serving" / "embedded" / "models" / "tiny_base"
BOM = b"\xef\xbb\xbf"
EACH = 40  # rows of a layout
LAYOUTS = {
    "messages": EACH,
    "problem + generated_solution": EACH,
    "problem + solution": EACH,
    "query + response": EACH,
}
DROPPED = {"incorrect": 1, "malformed_json": 1, "no_user_turn": 1, "special_token": 1}


def words(folder: Path) -> list[str]:
    """What makes a launch take them."""
    return [
        f"data={_rows(folder / 'data')}",
        f"benchmarks=[{_benchmark(folder)}]",
        f"student.hf_path={_model(folder)}",
    ]


def _rows(folder: Path) -> Path:
    folder.mkdir()
    rows = [(row["problem"], row["solution"]) for row in solved()[: 4 * EACH]]
    plain = [{"problem": problem, "generated_solution": solution} for problem, solution in rows[:EACH]]
    bad = [plain[0] | {"is_correct": False}, plain[0] | {"generated_solution": "A<|eot_id|>B"}]
    lines = [json.dumps(row).encode() for row in [*plain, *bad]]
    (folder / "a.jsonl").write_bytes(BOM + b"\r\n".join([*lines, b'{"problem": "cut']))
    query = [{"query": problem, "response": f"{solution}<|eot_id|>"} for problem, solution in rows[EACH : 2 * EACH]]
    (folder / "b.json").write_text(json.dumps(query, indent=1))
    numina = [{"problem": problem, "solution": solution, "messages": _asked(problem, solution)} for problem, solution in rows[2 * EACH : 3 * EACH]]  # fmt: skip
    chats = [{"messages": _asked(problem, solution)} for problem, solution in rows[3 * EACH :]]
    alone = {"messages": [{"role": "assistant", "content": "Hello!"}]}
    pq.write_table(pa.Table.from_pylist([*numina, *chats, alone]), folder / "c.parquet")
    return folder


def _asked(problem: str, solution: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": problem}, {"role": "assistant", "content": solution}]


def _benchmark(folder: Path) -> Path:
    path = folder / "sums.json"
    path.write_bytes(BOM + json.dumps(benchmark("math", 20)).encode())
    return path


def _model(folder: Path) -> Path:
    """The tiny model with two tokens that it has no embeddings for, as those of a tokenizer that was extended."""
    copy = shutil.copytree(TINY, folder / "extended")
    content = json.loads((copy / "tokenizer.json").read_text())
    vocab = json.loads((copy / "config.json").read_text())["vocab_size"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    content["added_tokens"] += [
        {"id": vocab + i, "content": text, **flags} for i, text in enumerate(("<think>", "</think>"))
    ]
    (copy / "tokenizer.json").write_text(json.dumps(content))
    return copy
