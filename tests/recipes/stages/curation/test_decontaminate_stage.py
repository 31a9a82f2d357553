"""decontaminate on files small enough to check by eye; killed, with hostile rows, with any number of workers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from nemo_ext.curation.contamination import parts
from recipes import run_stage
from tests.conftest import ROOT
from tests.nemo_ext.curation.test_ngrams import OPENING, OTHER
from tests.nemo_ext.curation.test_ngrams import TEST as SKYWORK
from tests.recipes.conftest import external, lines, write_config

JUDGE = {"name": "judge", "template": "chat", "user": "{problem} ## {other_problem}"}
PENS = "Ava has 7 pens and buys 3 boxes of 4 pens. How many pens has Ava?"
REWORDED = "Ben has 7 pens and buys 3 boxes of 4 pens. How many pens has Ben?"
CLEAN = "A train leaves at noon and travels 60 miles."


def rows_of(*problems: str, **more: Any) -> list[dict[str, Any]]:
    return [{"id": str(i), "problem": text, "expected_answer": None, **more} for i, text in enumerate(problems)]


def benchmark_of(*problems: str, benchmark: str = "gsm8k") -> list[dict[str, Any]]:
    return rows_of(*problems, benchmark=benchmark)


@pytest.fixture
def keys(model: dict[str, Any]) -> dict[str, Any]:
    return {"judge": "rule", "model": model, "server": {"kind": "embedded"}}


@pytest.mark.parametrize(
    ("ngrams", "methods"), [([], {}), ([30], {}), ([10], {OTHER: "10-gram"}), ([30, 10], {OTHER: "10-gram"})]
)
def test_ngrams_and_exact_matches_need_no_judge(run, rows, keys, ngrams: list[int], methods: dict[str, str]) -> None:
    source = rows(rows_of(OTHER, SKYWORK.upper(), CLEAN))
    ran = run("decontaminate", inputs=[source], benchmarks=rows(benchmark_of(SKYWORK)), **keys | {"judge": "none", "ngrams": ngrams})  # fmt: skip
    found = {row["problem"]: row["contamination"]["method"] for row in ran.dropped}
    assert found == {SKYWORK.upper(): "exact"} | methods
    assert [row["problem"] for row in ran.output] == [text for text in (OTHER, CLEAN) if text not in found]
    if methods:
        (evidence,) = [row["contamination"] for row in ran.dropped if row["problem"] == OTHER]
        assert evidence["words"] == "let x and y be nonzero real numbers such that"


def test_contaminated_jsonl_and_the_audit(run, rows, keys) -> None:
    source = rows([*rows_of(PENS, REWORDED, CLEAN), *rows_of(PENS, PENS)])
    tests = rows(
        [
            *benchmark_of(PENS, "What?"),
            *benchmark_of("Is 4 even?", benchmark="math"),
            *benchmark_of(PENS, benchmark="old"),
        ]
    )
    ran = run("decontaminate", inputs=[source], benchmarks=tests, **keys, ngrams=[15, 30])
    first, second = lines(ran.folder / "contaminated.jsonl")
    assert (first["problem"], first["num_rows"], first["method"], first["benchmark"]) == (PENS, 3, "exact", "gsm8k")
    assert [(also["benchmark"], also["method"]) for also in first["also"]] == [
        ("old", "exact"), ("gsm8k", "15-gram"), ("old", "15-gram"), ("gsm8k", "rule"), ("old", "rule"),
    ]  # fmt: skip
    assert (second["id"], second["problem"], second["benchmark_problem"]) == ("1", REWORDED, PENS)
    assert (second["method"], second["num_hits"]) == ("rule", 2)
    figures = ran.manifest["figures"]
    counted = {"problems": 3, "contaminated": 2, "rows": 5, "contaminated_rows": 4, "undecided": 0}
    assert counted.items() <= figures.items()
    assert figures["by_benchmark"] == {"gsm8k": 2}
    assert figures["audit"]["gsm8k"] == {
        "size": 2, "found": 1, "problems": 2, "rows": 4, "methods": {"15-gram": 1, "exact": 1, "rule": 2},
        "too_short": {"15-gram": 1, "30-gram": 2},
    }  # fmt: skip
    assert figures["audit"]["math"]["found"] == 0 and figures["audit"]["old"]["problems"] == 2
    table = (ran.folder / "audit.md").read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert cells[2] == ["gsm8k", "2", "1", "50.00 %", "2", "66.67 %", "4", "1", "1", "0", "2"]
    assert "shorter than 30 words, so that no 30-gram can find them: 2 of gsm8k, 1 of math, 1 of old" in table
    assert f"  - 0: {PENS}" in table
    assert len({len(line) for line in table.splitlines() if line.startswith("|")}) == 1, "columns are aligned"


def test_a_phrase_that_many_tests_have_hides_no_other_method(run, rows, keys) -> None:
    tests = [f"{OPENING} they are {i} and {i + 1}. Find the least of them." for i in range(25)]
    ran = run(
        "decontaminate",
        inputs=[rows(rows_of(tests[3], CLEAN))],
        benchmarks=rows(benchmark_of(*tests)),
        ngrams=[10],
        **keys,
    )
    (found,) = lines(ran.folder / "contaminated.jsonl")
    assert Counter(also["method"] for also in found["also"]) == {"10-gram": 10, "rule": 1}
    assert (found["method"], found["num_hits"]) == ("exact", 27)
    assert ran.manifest["figures"]["audit"]["gsm8k"]["found"] == 25


def test_marked_rows_stay(run, rows, keys) -> None:
    ran = run(
        "decontaminate", inputs=[rows(rows_of(PENS, CLEAN))], benchmarks=rows(benchmark_of(PENS)), mode="mark", **keys
    )
    assert [row["problem"] for row in ran.output] == [PENS, CLEAN] and not ran.dropped
    assert [row.get("contamination", {}).get("method") for row in ran.output] == ["exact", None]


def test_an_audit_writes_no_rows(rows, keys, tmp_path: Path) -> None:
    settings = {"inputs": [rows(rows_of(PENS, CLEAN))], "benchmarks": rows(benchmark_of(PENS)), "mode": "audit"}
    run_stage.run(write_config(tmp_path / "out", "decontaminate", settings | keys))
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"contaminated.jsonl", "audit.md", "manifest.json", "_DONE"} <= written
    assert not [name for name in written if name.startswith(("output", "dropped"))]
    assert [row["problem"] for row in lines(tmp_path / "out" / "contaminated.jsonl")] == [PENS]


def judge_of(verdict: Callable[[str, str], str]) -> Callable[[web.Request, int], Any]:
    async def judge(request: web.Request, index: int) -> web.Response:
        first, _, second = (await request.json())["messages"][-1]["content"].partition(" ## ")
        message = {"message": {"role": "assistant", "content": verdict(first, second)}}
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        return web.json_response({"choices": [{"index": 0, "finish_reason": "stop", **message}], "usage": usage})

    return judge


def test_replies_of_both_orders_are_kept_and_the_settled_are_not_asked(run, rows, model, fake) -> None:
    replies = {(REWORDED, PENS): "false", (PENS, REWORDED): "true.", (CLEAN, PENS): "False", (PENS, CLEAN): "unsure"}
    server = fake(judge_of(lambda first, second: replies[first, second]))
    ran = run(
        "decontaminate", inputs=[rows(rows_of(PENS, REWORDED, CLEAN))], benchmarks=rows(benchmark_of(PENS, "Zzz")),
        model=model, server=external(server), prompt=JUDGE,
    )  # fmt: skip
    assert len(server.bodies) == 4, "neither the exact match, nor a test problem without a word in common"
    assert [row["method"] for row in lines(ran.folder / "contaminated.jsonl")] == ["exact", "llm"]
    evidence = lines(ran.folder / "contaminated.jsonl")[1]
    assert evidence["replies"] == {"problem_first": "false", "benchmark_first": "true."}
    assert ran.dropped[1]["contamination"]["order"] == "benchmark_first"
    assert ran.manifest["figures"]["undecided"] == 1
    assert "1 pairs were not decided" in (ran.folder / "audit.md").read_text()


MANY = [f"Item {i}: {i * 7} pens and {i} boxes cost {i + 3} dollars; what do {i * 2} cost?" for i in range(120)]


def test_the_number_of_workers_changes_no_byte(run, rows, keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_PROBLEMS", 17)
    source, tests = (
        rows(rows_of(*MANY)),
        rows(benchmark_of(*MANY[::9], *(text.replace("Item", "Thing") for text in MANY[::7]))),
    )
    names = ("output.jsonl", "dropped.jsonl", "contaminated.jsonl", "audit.md")
    written = []
    for workers in (1, 2):
        ran = run("decontaminate", folder=f"w{workers}", inputs=[source], benchmarks=tests, workers=workers, ngrams=[10], **keys | {"name": "same"})  # fmt: skip
        written.append([(ran.folder / name).read_bytes() for name in names])
        assert not (ran.folder / "candidates").exists(), "of use to a killed run alone"
    assert written[0] == written[1] and 0 < written[0][1].count(b"\n") < len(MANY)


def test_rows_of_a_problem_are_counted_over_all_inputs(rows, keys) -> None:
    """Seed problems and new ones; a stage's own row without a problem goes through."""
    seeds, new = rows(rows_of(PENS, CLEAN)), rows([*rows_of(CLEAN, PENS, PENS), {"id": "9", "problem": None}])
    Path(new, "manifest.json").write_text("{}")
    settings = {"inputs": [seeds, new], "benchmarks": rows(benchmark_of(PENS)), "mode": "mark"}
    out = Path(seeds).parent / "out"
    run_stage.run(write_config(out, "decontaminate", settings | keys))
    (found,) = lines(out / "contaminated.jsonl")
    assert (found["id"], found["num_rows"]) == ("0", 3)
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["figures"]["rows"], manifest["rows_out"]) == (5, 6)


def test_a_benchmark_that_changed_is_looked_for_again(run, rows, keys, tmp_path: Path) -> None:
    source, tests = rows(rows_of(PENS, CLEAN)), rows(benchmark_of(PENS))
    assert [row["problem"] for row in run("decontaminate", inputs=[source], benchmarks=tests, **keys).output] == [
        CLEAN
    ]
    Path(tests, "output.jsonl").write_text(json.dumps(benchmark_of(CLEAN)[0]) + "\n")
    assert [row["problem"] for row in run("decontaminate", inputs=[source], benchmarks=tests, **keys).output] == [PENS]


def test_hostile_rows(run, keys, rows, tmp_path: Path) -> None:
    """Each row of a person's file is dropped with a reason or looked at; none stops the run."""
    huge = "word " * 400_000 + PENS
    good = [
        {"problem": f"nul \0 {PENS}"},
        {"question": PENS},
        {"problem": "?"},
        {"problem": huge},
        {"problem": PENS, "id": "0"},
    ]
    bad = [{"problem": None}, {"problem": ["a"]}, {"problem": " "}, {"problem": "x" * (9 << 20)}]
    text = [json.dumps(row).encode() for row in (*good, *bad)] + [
        b'{"problem": "cut',
        b'{"problem": "\xff"}',
        b"\0\0",
        b"[" * 500,
    ]
    (tmp_path / "mine.jsonl").write_bytes(b"\n".join(text) + b"\n")
    ran = run("decontaminate", inputs=[str(tmp_path / "mine.jsonl")], benchmarks=rows(benchmark_of(PENS)), ngrams=[10], **keys)  # fmt: skip
    assert ran.manifest["rows_in"] == len(text)
    assert ran.manifest["dropped"] == {
        "contaminated_gsm8k": 4, "malformed_json": 4, "no_problem": 3, "row_too_long": 1,
    }  # fmt: skip
    assert [row["problem"] for row in ran.output] == ["?"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"judge": "oracle"}, r"judge='oracle'; it may be one of \('llm', 'rule', 'none'\)"),
        ({"mode": "delete"}, "mode='delete'; it may be one of"),
        ({"retrieval": ["bm25"]}, r"retrieval=\['bm25'\]; it may have \('tfidf', 'dense'\)"),
        ({"retrieval": []}, r"retrieval=\[\]; it may have"),
        ({"retrieval": ["dense"]}, "encoder is not set, and dense retrieval needs a sentence-transformers model"),
        ({"ngrams": [0]}, r"ngrams=\[0\]: lengths in words"),
        ({"top_k": 0}, "top_k=0"),
        ({"shards": 2}, "shards=2: a problem would be judged once a shard"),
    ],
)
def test_what_it_refuses(run, rows, keys, wrong: dict[str, Any], said: str) -> None:
    source, tests = rows(rows_of(PENS)), rows(benchmark_of(PENS))
    with pytest.raises(ValueError, match=said):
        run("decontaminate", inputs=[source], benchmarks=tests, **keys | wrong)


def test_an_empty_data_set_and_one_all_of_copies(run, rows, keys) -> None:
    tests = rows(benchmark_of(PENS))
    for source in (rows(rows_of(PENS)), rows([])):
        with pytest.raises(ValueError, match="no row is left"):
            run("decontaminate", inputs=[source], benchmarks=tests, folder=Path(source).name + "x", **keys)
    with pytest.raises(ValueError, match=r"benchmarks=.*no row is left"):
        run("decontaminate", inputs=[rows(rows_of(PENS))], benchmarks=rows([]), folder="none", **keys)


SMALL_PARTS = """
import sys, time
from nemo_ext.curation.contamination import parts
from recipes import run_stage
write = parts._write
def write_or_hang(path, rows):
    if path.name in sys.argv[2:]:
        time.sleep(600)
    write(path, rows)
parts.PART_PROBLEMS, parts._write = 5, write_or_hang
sys.exit(run_stage.main(["", sys.argv[1]]))
"""


def _killed_when(path: Path, ready: Callable[[], bool], hangs_at: str = "") -> None:
    """`hangs_at`: a part that is never written."""
    process = subprocess.Popen([sys.executable, "-c", SMALL_PARTS, str(path), hangs_at], cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
    while not ready() and process.poll() is None:
        time.sleep(0.002)
    assert process.poll() is None, "it was to be killed before its end"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _finished(path: Path) -> dict[str, bytes]:
    done = subprocess.run([sys.executable, "-c", SMALL_PARTS, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {
        name: (path.parent / name).read_bytes() for name in ("output.jsonl", "dropped.jsonl", "contaminated.jsonl")
    }


def test_killed_while_it_retrieves(rows, keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rerun keeps the parts that are whole, makes one that was edited again, and its result is that of a run nobody
    killed."""
    tests = rows(benchmark_of(*MANY[::9]))
    settings = {"inputs": [rows(rows_of(*MANY))], "benchmarks": tests, "ngrams": [10], "workers": 1, **keys}
    path = write_config(tmp_path / "killed", "decontaminate", settings | {"name": "same"})
    found = lambda: sorted((path.parent / "candidates").glob("found_*.jsonl"))  # noqa: E731
    _killed_when(path, lambda: len(found()) >= 3, hangs_at="found_00003.jsonl")
    assert len(found()) == 3 and not (path.parent / "contaminated.jsonl").exists()
    first = found()[0].read_bytes()
    found()[0].write_bytes(b'{"hits":[],"near":[]}\n' * first.count(b"\n"))
    kept: dict[Path, int] = {}

    class Inodes(parts.Parts):
        def read(self) -> Any:
            kept.update({each: each.stat().st_ino for each in found()})
            return super().read()

    before = {each: each.stat().st_ino for each in found()}
    monkeypatch.setattr(parts, "PART_PROBLEMS", 5)  # as in SMALL_PARTS
    monkeypatch.setattr(parts, "Parts", Inodes)
    run_stage.run(path)
    result = {name: (path.parent / name).read_bytes() for name in ("dropped.jsonl", "contaminated.jsonl")}
    made_again = {each.name for each in before if kept[each] != before[each]}
    assert "found_00000.jsonl" in made_again and "found_00001.jsonl" not in made_again
    whole = _finished(write_config(tmp_path / "whole", "decontaminate", settings | {"name": "same"}))
    assert first.count(b'"exact"') == 1 and MANY[0].encode() in whole["dropped.jsonl"], "the first part has one"
    for name in ("dropped.jsonl", "contaminated.jsonl"):
        assert result[name] == whole[name], "as of a run that nobody killed"


def test_killed_while_it_judges(rows, model, fake, tmp_path: Path) -> None:
    """No judgement that was stored is asked for again."""
    asked = MANY[:60]
    answer, killed = judge_of(lambda a, b: "True" if a.split()[1:] == b.split()[1:] else "False"), False

    async def judge(request: web.Request, index: int) -> web.Response:
        while index > 60 and not killed:
            await asyncio.sleep(0.005)
        return await answer(request, index)

    server = fake(judge)
    settings = {
        "inputs": [rows(rows_of(*asked))], "benchmarks": rows(benchmark_of(*(text.replace("Item", "Thing") for text in asked[::9]))),
        "model": model, "server": external(server), "prompt": JUDGE, "top_k": 3, "name": "same",
    }  # fmt: skip
    path = write_config(tmp_path / "killed", "decontaminate", settings)
    completions = path.parent / "completions.jsonl"
    _killed_when(path, lambda: completions.is_file() and completions.read_bytes().count(b"\n") > 50)
    killed = True
    stored = completions.read_bytes().count(b"\n")
    _finished(path)
    total = 2 * 3 * len(asked)
    assert total <= len(server.bodies) <= total + 8 < total + stored, "but for what was under way when it was killed"
    assert [row["problem"] for row in lines(path.parent / "contaminated.jsonl")] == asked[::9]
    assert [row["problem"] for row in lines(path.parent / "dropped.jsonl")] == asked[::9]


def test_the_most_similar_of_all_benchmarks_or_of_each(run, rows, model, fake) -> None:
    """OpenMathInstruct-2 asks about so many of all, which is a quarter of the requests with four benchmarks."""
    names = ("aime", "amc", "gsm8k", "math")
    tests = rows(
        [row for name in names for row in benchmark_of(*(f"{PENS} {name} {i}" for i in range(3)), benchmark=name)]
    )
    asked = {}
    for of in ("all", "each"):
        server = fake(judge_of(lambda first, second: "False"))
        keys = {"model": model, "server": external(server), "prompt": JUDGE, "top_k": 2, "top_k_of": of}
        run("decontaminate", folder=of, inputs=[rows(rows_of(REWORDED))], benchmarks=tests, **keys)
        asked[of] = len(server.bodies)
    assert asked == {"all": 2 * 2, "each": 2 * 2 * len(names)}


def test_benchmarks_that_were_not_prepared(run, rows, keys) -> None:
    with pytest.raises(ValueError, match="not what prepare_benchmarks writes"):
        run("decontaminate", inputs=[rows(rows_of(PENS))], benchmarks=rows(rows_of(PENS)), **keys)


def test_recall_and_precision_where_the_truth_is_known(run, rows, keys) -> None:
    """Whatever the rows' source: those that were planted, and those that say which task they state."""
    source = [
        *rows_of(REWORDED, contaminates="0", states_task="mine://pens"),
        *rows_of("An unlike text, planted.", contaminates="0", states_task="mine://pens"),
        *rows_of(PENS.replace("Ava", "Cal"), states_task="mine://other"),
        *rows_of(CLEAN),
    ]
    ran = run("decontaminate", inputs=[rows(source)], benchmarks=rows(benchmark_of(PENS)), **keys)
    planted = {"injected": 2, "injected_found": 1, "recall": 0.5}
    assert planted.items() <= ran.manifest["figures"].items() and ran.manifest["figures"]["precision"] is None
    tests = rows([row | {"states_task": "file://pens"} for row in benchmark_of(PENS)])
    source = [
        {**row, "states_task": row["states_task"].replace("mine", "file")} if "states_task" in row else row
        for row in source
    ]
    ran = run("decontaminate", "known", inputs=[rows(source)], benchmarks=tests, **keys)
    assert (planted | {"precision": 0.5}).items() <= ran.manifest["figures"].items()
    none = run(
        "decontaminate", "none", inputs=[rows(rows_of(REWORDED, CLEAN))], benchmarks=rows(benchmark_of(PENS)), **keys
    )
    assert not {"recall", "precision"} & none.manifest["figures"].keys()


def test_the_scheme_of_a_task_tells_it_from_the_text(run, rows, keys) -> None:
    """Of problems that a teacher wrote, which say nothing of their task."""
    from nemo_ext.toy.problems import identify
    from nemo_ext.toy.sources import benchmark, seeds

    tests = [row | {"benchmark": "gsm8k"} for row in benchmark("gsm8k", 6)]
    texts = [row["problem"] for row in (*seeds("gsm8k", 20, 6, seed=0), *tests)]
    ran = run("decontaminate", inputs=[rows(rows_of(*texts))], benchmarks=rows(tests), **keys | {"ngrams": [4]})
    tasks = {identify(row["problem"]) for row in tests}
    right = [identify(row["problem"]) in tasks for row in ran.dropped]
    assert ran.manifest["figures"]["precision"] == round(sum(right) / len(right), 4) and 0 < sum(right) < len(right)
