"""grade, vote, collect_problems, decontaminate and downsample, on rows small enough to check by eye."""

from collections import Counter
from typing import Any

import pytest
from aiohttp import web

from tests.nemo_ext.rows.solution_forms import in_every_form
from tests.recipes.conftest import external

JUDGE = {"name": "judge", "template": "chat", "user": "{problem} ## {other_problem}"}


def solved(row_id: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "id": row_id,
        "problem": f"P{row_id}",
        "problem_source": "math",
        "generation": text,
        "finish_reason": "stop",
        **more,
    }


def test_grade(run, rows) -> None:
    texts = {r"\boxed{4}": True, r"\boxed{4.0}": True, r"\boxed{5}": False, "no answer": False, r"\boxed{4": False}
    data = [solved(str(i), text, expected_answer="4") for i, text in enumerate(texts)]
    ran = run("grade", input=rows(data))
    assert [row["is_correct"] for row in ran.output] == list(texts.values())
    assert [row["predicted_answer"] for row in ran.output][2:4] == ["5", None]
    assert ran.manifest["figures"]["correct"] == 2 and ran.manifest["rows_in"] == 5
    assert [{key: row[key] for key in data[0]} for row in ran.output] == data, "rows only gain keys"


def test_vote(run, rows) -> None:
    answers = {"a": [r"\boxed{0.5}", r"\boxed{\frac{1}{2}}", r"\boxed{0.5}", r"\boxed{7}"], "b": ["none", "none"]}
    source = rows([solved(i, text) for i, texts in answers.items() for text in texts])
    ran = run("vote", input=source)
    assert [row["expected_answer"] for row in ran.output] == ["0.5"] * 4 + [None] * 2
    assert [row["is_correct"] for row in ran.output] == [True, False, True, False, False, False]
    assert (ran.output[0]["majority_votes"], ran.output[0]["total_votes"]) == (2, 4)
    assert ran.manifest["figures"] == {"answered": 1, "unanswered": 1, "layouts": {"problem + generation": 6}}
    same = run("vote", input=source, mode="equivalent", folder="equivalent")
    assert [row["is_correct"] for row in same.output] == [True, True, True, False, False, False]
    with pytest.raises(ValueError, match=r"mode='most'; it may be one of \('exact', 'equivalent'\)"):
        run("vote", input=source, mode="most", folder="most")


def test_collect_problems(run, rows) -> None:
    seeds = rows([{"id": "s", "problem": "How many  pens?", "problem_source": "gsm8k"}])
    texts = [" New one? ", "NEW one?", "how many pens?", "  ", "Cut off"]
    made = [solved("s", text, problem="How many  pens?", problem_source="gsm8k") for text in texts]
    made[-1]["finish_reason"] = "length"
    ran = run("collect_problems", input=rows(made), seeds=seeds)
    assert [(r["problem"], r["problem_source"], r["seed_id"]) for r in ran.output] == [
        ("New one?", "augmented_gsm8k", "s")
    ]
    assert ran.reasons == ["duplicate_problem", "duplicate_problem", "empty", "truncated"]
    assert ran.manifest["rows_in"] == 5


TEST = {
    "id": "7",
    "benchmark": "gsm8k",
    "problem": "Ava has 7 pens and buys 3 boxes of 4 pens. How many pens has Ava?",
    "expected_answer": "19",
}
REWORDED = "Ben has 7 pens and buys 3 boxes of 4 pens. How many pens has Ben?"
CLEAN = "A train leaves at noon and travels 60 miles."


def test_decontaminate_by_rule(run, rows, model) -> None:
    source = rows(
        [
            solved("1", "x", problem=p, expected_answer=a)
            for p, a in ((REWORDED, "19"), (CLEAN, None), (REWORDED, "19"))
        ]
    )
    ran = run(
        "decontaminate",
        inputs=[source],
        benchmarks=rows([TEST]),
        judge="rule",
        model=model,
        server={"kind": "embedded"},
    )
    assert [row["problem"] for row in ran.output] == [CLEAN]
    assert ran.reasons == ["contaminated_gsm8k"] * 2
    evidence = ran.dropped[0]["contamination"]
    assert (evidence["benchmark"], evidence["id"], evidence["problem"]) == ("gsm8k", "7", TEST["problem"])
    assert ran.manifest["figures"]["contaminated"] == 1 and ran.manifest["figures"]["problems"] == 2


def test_decontaminate_asks_in_both_orders(run, rows, model, fake) -> None:
    async def judge(request: web.Request, index: int) -> web.Response:
        first, _, second = (await request.json())["messages"][-1]["content"].partition(" ## ")
        verdict = "True." if (first, second) == (TEST["problem"], REWORDED) else "False"
        message = {"message": {"role": "assistant", "content": verdict}}
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        return web.json_response({"choices": [{"index": 0, "finish_reason": "stop", **message}], "usage": usage})

    server = fake(judge)
    source = rows([solved("1", "x", problem=p, expected_answer=None) for p in (REWORDED, CLEAN)])
    keys = {
        "inputs": [source],
        "benchmarks": rows([TEST]),
        "prompt": JUDGE,
        "model": model,
        "server": external(server),
    }
    ran = run("decontaminate", **keys)
    assert [row["problem"] for row in ran.output] == [CLEAN]
    assert (ran.dropped[0]["contamination"]["order"], ran.dropped[0]["contamination"]["reply"]) == (
        "benchmark_first",
        "True.",
    )
    assert len(server.bodies) == 4 and {body["temperature"] for body in server.bodies} == {0.0}
    assert run("decontaminate", **keys).output == ran.output and len(server.bodies) == 4, "judgements are kept"


def test_decontaminate_refuses_a_judge_without_a_prompt(run, model) -> None:
    with pytest.raises(ValueError, match=r"prompt is not set, and judge=llm needs one"):
        run("decontaminate", benchmarks="x", model=model, server={"kind": "embedded"})


@pytest.mark.parametrize("method", ["fair", "random"])
def test_downsample(run, rows, method: str) -> None:
    data = [solved("hard", f"h{i}") for i in range(3)] + [solved("easy", f"e{i}") for i in range(30)]
    source = rows(data)
    ran = run("downsample", input=source, num_rows=8, method=method)
    assert len(ran.output) == 8 and ran.reasons == ["not_sampled"] * 25
    assert [row for row in data if row in ran.output] == ran.output, "in their order"
    if method == "fair":
        assert Counter(row["id"] for row in ran.output) == {"hard": 3, "easy": 5}
    assert run("downsample", input=source, num_rows=8, method=method, folder="again").output == ran.output
    assert run("downsample", input=source, num_rows=8, method=method, seed=1, folder="seed").output != ran.output
    assert run("downsample", input=source, num_rows=99, method=method, folder="all").output == data
    with pytest.raises(ValueError, match="method='best'"):
        run("downsample", input=source, method="best", folder="best")


@in_every_form
def test_problems_from_another_column(run, rows, form) -> None:
    seeds = rows([{"id": "s", "problem": "How many?", "problem_source": "gsm8k"}])
    made = [form(solved("s", text, problem="How many?", problem_source="gsm8k")) for text in ("New one?", "how MANY?")]
    del made[0]["finish_reason"]
    ran = run("collect_problems", input=rows(made), seeds=seeds)
    assert [row["problem"] for row in ran.output] == ["New one?"] and ran.reasons == ["duplicate_problem"]


def test_problems_without_a_text(run, rows) -> None:
    seeds = rows([{"id": "s", "problem": "How many?", "problem_source": "gsm8k"}])
    made = [solved("s", text, problem="How many?", problem_source="gsm8k") for text in ("New one?", None)]
    assert run("collect_problems", input=rows(made), seeds=seeds).reasons == ["empty"]
