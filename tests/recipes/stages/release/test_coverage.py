"""The table of strategies: every sample accounted for, or one line that says what does not add up."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from nemo_ext.records import manifest
from nemo_ext.records.files import write_text_atomic
from nemo_ext.rows.row import Row
from recipes import run_stage
from tests.nemo_ext.serving.fake_server import reply_to
from tests.recipes.conftest import Rows, external, write_config
from tests.recipes.stages.generation.test_generate import QUICK
from tests.recipes.stages.generation.test_strategies import ROWS as ASKED
from tests.recipes.stages.generation.test_strategies import strategies

CODE = "<llm-code>\nprint({0})\n</llm-code>\n<llm-code-output>\n{0}\n</llm-code-output>\n\\boxed{{{0}}}"
WORDS = "It is \\boxed{{{0}}}."
PROBLEMS = [
    {"id": name, "problem": f"What is {name}?", "problem_source": source, "expected_answer": "4"}
    for name, source in (("a", "math"), ("b", "math"), ("c", "math"), ("g", "gsm8k"), ("h", "gsm8k"))
]


def sample(problem: int, strategy: str | None, index: int, text: str, **more: Any) -> dict[str, Any]:
    named = {"strategy": strategy} if strategy else {}
    trace = {"executions": text.count("<llm-code>"), "errors": {}, "ended": "answer"}
    return PROBLEMS[problem] | named | {"sample_index": index, "generation": text, "trace": trace, **more}


TIMED_OUT = {"trace": {"executions": 1, "errors": {"timeout": 1}, "ended": "error"}}
SAMPLES = [
    sample(0, "default", 0, CODE.format(4)),
    sample(0, "default", 1, CODE.format(4) + " "),  # the same, white space apart
    sample(0, "masked", 2, WORDS.format(4)),
    sample(0, "masked", 3, CODE.format(5), **TIMED_OUT),
    sample(1, "default", 0, WORDS.format(5)),
    sample(1, "default", 1, "<llm-code>\nprint(4)\n</llm-code> \\boxed{4}"),  # its output is missing: no block
    sample(1, "masked", 2, CODE.format(4) + CODE.format(4)),
    sample(3, "default", 0, WORDS.format(4)),
    sample(3, "masked", 2, WORDS.format(3)),
]
NOT_ASKED = [
    PROBLEMS[2] | {"strategy": "masked", "reason": "missing_masked_solution"},
    sample(2, "default", 0, "", reason="refused_by_server", error="too much"),
]


class Folders:
    """Stages' folders as they are when a run has finished, and the coverage of them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, kept: Rows, dropped: Sequence[Row] = (), *reads: str) -> str:
        folder = self.root / name
        for file, rows in (("output", kept), ("dropped", dropped)):
            write_text_atomic(folder / f"{file}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        inputs = [Path(each) / "output.jsonl" for each in reads]
        facts = manifest.Facts(inputs=inputs, outputs=[folder / "output.jsonl"])
        manifest.write(folder, name, name, "x", facts, 0.0)
        return str(folder)

    def cover(self, samples: str, *stages: str, **keys: Any) -> dict[str, Any]:
        problems = keys.pop("problems", None) or self.write("problems", PROBLEMS)
        settings = {
            "problems": problems,
            "samples": samples,
            "stages": list(stages),
            "graded": stages[0],
            "workers": 1,
        }
        path = write_config(self.root / "coverage", "coverage", settings | keys)
        module, config = run_stage.load(path)
        module.check(config)
        run_stage.run(path)
        found = json.loads((self.root / "coverage" / "coverage.json").read_text())
        assert manifest.read(self.root / "coverage")["figures"] == found
        return found


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


@pytest.fixture
def finish(folders: Folders, run: Callable[..., Any]) -> Callable[..., tuple[str, ...]]:
    """The stages of OpenMathInstruct-1 themselves, after samples that a model might have written."""
    steps = [{"name": "incorrect"}, {"name": "broken_code"}]
    chain = {
        "grade": {},
        "filter": {"steps": steps, "model": {"name": "none", "hf_path": "none", "context_length": 1}},
        "deduplicate": {},
        "select_code": {"mode": "any_code", "sources": ["math"]},
        "downsample": {"num_rows": 2},
    }

    def start(samples: Rows, not_asked: Rows, last: str = "downsample") -> tuple[str, ...]:
        made = [folders.write("solve", samples, not_asked)]
        for name in list(chain)[: list(chain).index(last) + 1]:
            made.append(str(run(name, name, input=made[-1], **chain[name]).folder))
        return tuple(made)

    return start


def by_name(found: dict[str, Any]) -> dict[tuple[str | None, str | None], dict[str, Any]]:
    return {(row["source"], row["strategy"]): row for row in found["rows"]}


def test_the_stages_of_a_run_are_followed(folders: Folders, finish: Callable[..., tuple[str, ...]]) -> None:
    finished = finish(SAMPLES, NOT_ASKED)
    found = folders.cover(*finished)
    assert found["strategies"] == ["default", "masked"]
    assert found["stages"] == ["solve", "grade", "filter", "deduplicate", "select_code", "downsample"]
    rows = by_name(found)
    assert found == folders.cover(*finished, workers=2)
    assert [*rows] == [
        ("gsm8k", "default"), ("gsm8k", "masked"), ("gsm8k", None), ("math", "default"), ("math", "masked"), ("math", None), (None, None),
    ]  # fmt: skip
    default, masked, both = rows["math", "default"], rows["math", "masked"], rows["math", None]
    assert [row["samples"] for row in (default, masked, both)] == [5, 3, 8]
    assert [row["correct"] for row in (default, masked, both)] == [3, 2, 5]
    assert [row["unique_correct"] for row in (default, masked, both)] == [2, 2, 4]
    assert [(row["solved"], row["problems"], row["coverage"]) for row in (default, masked, both)] == [
        (2, 3, 66.667)
    ] * 3
    assert masked["solved_so_far"] == 2 and masked["not_asked"] == {"missing_masked_solution": 1}
    assert default["dropped"]["solve"] == {"refused_by_server": 1}
    assert default["dropped"]["filter"] == {"incorrect": 1, "broken_code": 1}
    assert default["dropped"]["deduplicate"] == {"duplicate": 1} and masked["dropped"]["select_code"] == {
        "has_no_code": 1
    }
    assert default["kept"] == {"solve": 4, "grade": 4, "filter": 2, "deduplicate": 1, "select_code": 1, "downsample": default["kept"]["downsample"]}  # fmt: skip
    assert (
        masked["errors"] == {"timeout": 1}
        and masked["ended"] == {"answer": 2, "error": 1}
        and masked["executions"] == 3
    )
    assert default["code_blocks"]["correct"] == {"0": 0, "1": 2, "2+": 0, "malformed": 1}
    assert both["code_blocks"]["correct"] == {"0": 1, "1": 2, "2+": 1, "malformed": 1}
    everything = rows[None, None]
    assert (everything["problems"], everything["samples"], everything["solved"], everything["coverage"]) == (
        5,
        10,
        3,
        60.0,
    )
    assert everything["kept"]["downsample"] == 2 == sum(everything["code_blocks"]["kept"].values())
    for row in found["rows"]:
        assert row["samples"] == row["kept"]["downsample"] + sum(
            sum(each.values()) for each in row["dropped"].values()
        )


@pytest.fixture
def chain(folders: Folders) -> tuple[str, ...]:
    """solve and grade, where both keep everything."""
    solve = folders.write("solve", SAMPLES, NOT_ASKED)
    graded = [row | {"is_correct": "boxed{4}" in row["generation"]} for row in SAMPLES]
    return solve, folders.write("grade", graded, [], solve)


def graded_rows(folder: str) -> Rows:
    return [json.loads(line) for line in (Path(folder) / "output.jsonl").read_text().splitlines()]


def test_a_lost_sample_is_named(folders: Folders, chain: tuple[str, ...]) -> None:
    rows = graded_rows(chain[1])
    dropped = [{"id": "a", "sample_index": 2, "reason": "not_sampled"}]
    last = folders.write("last", [*rows[:2], *rows[4:]], dropped, chain[1])
    message = r"last: of strategy masked 4 samples came in, and 2 kept \+ 1 dropped do not add up to them; sample 3 of problem 'a' is neither"
    with pytest.raises(ValueError, match=message):
        folders.cover(*chain, last)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: [*rows, rows[0]], "sample 0 of problem 'a' occurs twice"),
        (lambda rows: [*rows[1:], rows[0] | {"sample_index": 9}], "has sample 9 of problem 'a' under the strategy default, where none such"),
        (lambda rows: [rows[0] | {"strategy": "masked"}, *rows[1:]], "has sample 0 of problem 'a' under the strategy masked, where none such"),
        (lambda rows: [rows[0] | {"id": "z"}, *rows[1:]], "has sample 0 of problem 'z' under the strategy default"),
        (lambda rows: [{key: rows[0][key] for key in rows[0] if key != "strategy"}, *rows[1:]], r"under the strategy \(no strategy\)"),
        (lambda rows: [rows[0] | {"id": None}, *rows[1:]], "a row has no id, so that nothing says which problem"),
        (lambda rows: [rows[0] | {"sample_index": None}, *rows[1:]], "has sample_index=None; it says which sample"),
        (lambda rows: [rows[0] | {"sample_index": 1 << 60}, *rows[1:]], "has sample_index=1152921504606846976; .* to 1,048,575"),
        (lambda rows: [rows[0] | {"sample_index": True}, *rows[1:]], "has sample_index=True"),
    ],
)  # fmt: skip
def test_rows_that_are_not_these_samples_are_refused(
    folders: Folders, chain: tuple[str, ...], change: Callable[[Rows], Rows], words: str
) -> None:
    last = folders.write("last", change(graded_rows(chain[1])), [], chain[1])
    with pytest.raises(ValueError, match=words):
        folders.cover(*chain, last)
    assert not (folders.root / "coverage" / "coverage.json").exists()


def test_a_sample_that_is_kept_and_dropped_is_refused(folders: Folders, chain: tuple[str, ...]) -> None:
    both = [{"id": "a", "sample_index": 2, "reason": "not_sampled"}]
    with pytest.raises(ValueError, match="last: sample 2 of problem 'a' occurs twice"):
        folders.cover(*chain, folders.write("last", graded_rows(chain[1]), both, chain[1]))
    risen = graded_rows(folders.write("some", graded_rows(chain[1])[1:], [SAMPLES[0] | {"reason": "bad"}], chain[1]))
    last = folders.write("last", [SAMPLES[0], *risen], [], str(folders.root / "some"))
    with pytest.raises(ValueError, match="last has sample 0 of problem 'a', which the stage before it did not keep"):
        folders.cover(*chain, str(folders.root / "some"), last)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([SAMPLES[0]], "sample 0 of problem 'a' occurs twice"),
        ([SAMPLES[0] | {"strategy": "other"}], "sample 0 of problem 'a' occurs twice, as of default and of other"),
        ([SAMPLES[0] | {"id": "z"}], "has a sample of problem 'z', which .*problems does not have"),
        ([SAMPLES[0] | {"sample_index": 7, "problem": "Why?"}], "problem 'a' has two different texts"),
        ([SAMPLES[0] | {"sample_index": 7, "trace": [1]}], r"sample 7 of problem 'a' has trace=\[1\]; a trace is"),
        ([SAMPLES[0] | {"id": "c", "problem": "Why?"}], "problem 'c', which .*problems does not have in these words"),
    ],
)
def test_samples_that_cannot_be_told_apart_are_refused(folders: Folders, more: Rows, words: str) -> None:
    solve = folders.write("solve", [*SAMPLES, *more], [])
    with pytest.raises(ValueError, match=words):
        folders.cover(solve, folders.write("grade", graded_rows(solve), [], solve))


def test_two_problems_of_one_id_are_refused(folders: Folders, chain: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="has two problems with the id 'a', or without any"):
        folders.cover(*chain, problems=folders.write("twice", [*PROBLEMS, PROBLEMS[0]]))


def test_stages_of_another_run_are_refused_though_their_ids_are_the_same(
    folders: Folders, chain: tuple[str, ...]
) -> None:
    other = folders.write("other", [row | {"generation": "other"} for row in SAMPLES], NOT_ASKED)
    with pytest.raises(ValueError, match=r"grade was not made of the rows in .*other: its manifest has other inputs"):
        folders.cover(other, chain[1])
    last = folders.write("last", graded_rows(chain[1]), [], chain[0])
    with pytest.raises(ValueError, match=r"last was not made of the rows in .*grade"):
        folders.cover(*chain, last)


def test_files_that_were_changed_are_refused(folders: Folders, chain: tuple[str, ...]) -> None:
    dropped = Path(chain[0]) / "dropped.jsonl"
    dropped.write_text("")
    with pytest.raises(ValueError, match=r"solve is no longer what its stage wrote: file .*dropped.jsonl changed"):
        folders.cover(*chain)
    (Path(chain[0]) / "manifest.json").unlink()
    with pytest.raises(ValueError, match="has not finished"):
        folders.cover(*chain)


def test_the_config_is_checked(folders: Folders) -> None:
    with pytest.raises(ValueError, match=r"graded=other: it must be one of stages, \['grade'\]"):
        folders.cover("solve", "grade", graded="other")
    solve = folders.write("solve", SAMPLES)
    grade = folders.write("grade", SAMPLES, [], solve)
    with pytest.raises(ValueError, match="no row has the strategy 'subject'; they have default, masked"):
        folders.cover(solve, grade, strategies=["subject"])


def test_coverage_adds_up_in_the_order_that_is_asked_for(folders: Folders) -> None:
    rows = [sample(0, "second", 4, "x", is_correct=True), sample(1, "first", 0, "x", is_correct=True)]
    solve = folders.write("solve", rows)
    stages = (solve, folders.write("grade", rows, [], solve))
    assert folders.cover(*stages)["strategies"] == ["first", "second"], "as the samples count on"
    found = folders.cover(*stages, strategies=["second"])
    assert found["strategies"] == ["second", "first"]
    math = [row for row in found["rows"] if row["source"] == "math"]
    assert [(row["strategy"], row["solved"], row["solved_so_far"]) for row in math] == [("second", 1, 1), ("first", 1, 2), (None, 2, 2)]  # fmt: skip


def test_samples_of_one_way_of_asking_are_of_no_strategy(folders: Folders) -> None:
    rows = [sample(0, None, 0, WORDS.format(4), is_correct=True), sample(3, None, 0, "x", is_correct=False)]
    refused = [
        PROBLEMS[1] | {"sample_index": 0, "reason": "given_up", "error": "no reply"},
        PROBLEMS[2] | {"reason": "special_token"},
    ]
    raw = {"raw": "{", "reason": "malformed_json"}
    refused.append(PROBLEMS[2] | {"sample_index": 0, "generation": "an earlier one", "reason": "missing_hint"})
    solve = folders.write("solve", rows, [*refused, raw])
    last = folders.write("grade", rows[:1], [{"id": "g", "sample_index": 0, "reason": "bad"}], solve)
    found = folders.cover(solve, last)
    assert found["strategies"] == ["(no strategy)"] and found["unreadable"] == {"malformed_json": 1}
    math, gsm8k = (by_name(found)[source, "(no strategy)"] for source in ("math", "gsm8k"))
    assert (math["samples"], math["not_asked"], math["dropped"]["solve"]) == (
        2,
        {"missing_hint": 1, "special_token": 1},
        {"given_up": 1},
    )
    assert (math["coverage"], gsm8k["coverage"], gsm8k["dropped"]["grade"]) == (33.333, 0.0, {"bad": 1})


def test_a_strategy_that_no_problem_of_a_source_was_asked_under_has_no_percentage(folders: Folders) -> None:
    rows = [sample(0, "subject", 1, "x", is_correct=False), sample(3, "default", 0, "x", is_correct=False)]
    solve = folders.write("solve", rows)
    cells = by_name(folders.cover(solve, folders.write("grade", rows, [], solve)))
    unasked = cells["gsm8k", "subject"]
    assert (unasked["problems"], unasked["samples"], unasked["solved"]) == (2, 0, 0)
    assert [unasked[key] for key in ("coverage", "correct_percent", "kept_percent")] == [None] * 3
    assert cells["math", "subject"]["coverage"] == 0.0 == cells["gsm8k", "default"]["coverage"]


def test_a_model_that_never_writes_code(folders: Folders, finish: Callable[..., tuple[str, ...]]) -> None:
    rows = [row | {"generation": WORDS.format(4) + row["strategy"], "trace": None} for row in SAMPLES]
    cells = by_name(folders.cover(*finish(rows, [])))
    everything = cells[None, None]
    assert everything["code_blocks"]["correct"] == {"0": 9, "1": 0, "2+": 0, "malformed": 0}
    assert everything["code_blocks"]["kept"] == {"0": 2, "1": 0, "2+": 0, "malformed": 0}
    assert (everything["executions"], everything["errors"], everything["ended"]) == (0, {}, {})


def test_a_strategy_of_which_everything_is_dropped(folders: Folders, finish: Callable[..., tuple[str, ...]]) -> None:
    rows = [row | {"generation": WORDS.format(4 if row["strategy"] == "masked" else 5)} for row in SAMPLES]
    cells = by_name(folders.cover(*finish(rows, [])))
    default, both = cells["math", "default"], cells["math", None]
    assert (default["correct"], default["unique_correct"], default["solved"], default["coverage"]) == (0, 0, 0, 0.0)
    assert (default["kept"]["filter"], default["kept_percent"], default["dropped"]["filter"]) == (
        0,
        0.0,
        {"incorrect": 4},
    )
    assert (both["solved"], both["coverage"]) == (2, 66.667)


def test_a_source_without_a_correct_solution(folders: Folders, finish: Callable[..., tuple[str, ...]]) -> None:
    rows = [row | {"generation": WORDS.format(4 if row["problem_source"] == "math" else 5)} for row in SAMPLES]
    found = folders.cover(*finish(rows, []))
    gsm8k, everything = (by_name(found)[source, None] for source in ("gsm8k", None))
    assert (gsm8k["samples"], gsm8k["correct"], gsm8k["coverage"]) == (2, 0, 0.0)
    assert gsm8k["dropped"]["filter"] == {"incorrect": 2} and gsm8k["kept"]["downsample"] == 0
    assert gsm8k["code_blocks"]["kept"] == dict.fromkeys(("0", "1", "2+", "malformed"), 0)
    assert (everything["solved"], everything["problems"], everything["coverage"]) == (2, 5, 40.0)


def test_nothing_correct_at_all(folders: Folders, finish: Callable[..., tuple[str, ...]]) -> None:
    """The filter stops such a run: the table of what there is shows why."""
    rows = [row | {"generation": WORDS.format(5)} for row in SAMPLES]
    with pytest.raises(ValueError, match="filter: no row is left"):
        finish(rows, [], "filter")
    everything = by_name(folders.cover(*finish(rows, [], "grade")))[None, None]
    assert (everything["correct"], everything["unique_correct"], everything["coverage"]) == (0, 0, 0.0)


def test_the_manifest_records_every_file_and_a_change_of_one_is_seen(folders: Folders, chain: tuple[str, ...]) -> None:
    folders.cover(*chain)
    stage = folders.root / "coverage"
    done = json.loads((stage / manifest.DONE).read_text())
    names = {f"{Path(each['path']).parent.name}/{Path(each['path']).name}" for each in done["inputs"]}
    assert {"problems/output.jsonl", "solve/dropped.jsonl", "grade/output.jsonl", "grade/manifest.json"} <= names
    for folder in chain:
        late = Path(folder) / "dropped_00001.jsonl"
        late.write_text("")
        assert str(manifest.inputs_changed(stage)).endswith("dropped_00001.jsonl is new")
        late.unlink()
    assert manifest.inputs_changed(stage) is None


def test_what_generate_leaves_is_understood(
    folders: Folders, run: Callable[..., Any], model: dict[str, Any], fake: Callable[..., Any]
) -> None:
    """Rows that lack what a prompt needs were not asked about; those that the server refused are samples."""

    async def refuse_geometry(request: web.Request, _: int) -> web.StreamResponse:
        body = await request.json()
        if body["prompt"].startswith("math Draw"):
            return web.json_response({"error": {"message": "no"}}, status=400)
        return reply_to(body, "\\boxed{4}")

    problems = folders.write("problems", [row | {"expected_answer": "4"} for row in ASKED])
    asked = {"strategies": strategies(), "sampling": {"temperature": 1.0, "max_tokens": 8}, "client": QUICK}
    solved = run("generate", "solve", input=problems, model=model, server=external(fake(refuse_geometry)), **asked)
    graded = run("grade", "grade", input=str(solved.folder))
    cells = by_name(folders.cover(str(solved.folder), str(graded.folder), problems=problems))
    default, masked, subject = (cells["math", name] for name in ("default", "masked", "subject"))
    assert (default["samples"], default["dropped"]["solve"], default["solved"]) == (4, {"refused_by_server": 2}, 1)
    assert (masked["samples"], masked["not_asked"], masked["coverage"]) == (2, {"missing_masked_solution": 1}, 50.0)
    assert (subject["samples"], subject["not_asked"], subject["problems"]) == (3, {}, 2)
    assert cells["gsm8k", "subject"]["coverage"] is None and cells[None, None]["samples"] == 12


def test_a_stage_of_several_tasks_is_one(folders: Folders) -> None:
    shards = [
        folders.write("solve/shard_0", SAMPLES[:4], NOT_ASKED[:1]),
        folders.write("solve/shard_1", SAMPLES[4:], NOT_ASKED[1:]),
    ]
    graded = [row | {"is_correct": False} for row in SAMPLES]
    grade = folders.write("grade", graded, [], *shards)
    found = folders.cover(str(folders.root / "solve"), grade)
    assert (found["rows"][-1]["samples"], found["rows"][-1]["correct"]) == (10, 0)
    assert by_name(found)["math", "masked"]["not_asked"] == {"missing_masked_solution": 1}
    half = folders.write("half", graded, [], shards[0])
    with pytest.raises(ValueError, match=r"half was not made of the rows in .*solve"):
        folders.cover(str(folders.root / "solve"), half)
