"""downsample, match_coverage and inject_noise: rates, caps and pairs counted by hand."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.rows.row import written_solution
from tests.nemo_ext.rows.solution_forms import in_every_form

Rows = list[dict[str, Any]]


def pool(problems: int, solutions: int, wrong: int = 0, source: str = "math") -> Rows:
    """`solutions` correct and `wrong` wrong rows of each problem."""
    return [
        {
            "id": f"{source}{p}", "problem": f"What is {p} in {source}?", "problem_source": source, "sample_index": s,
            "generation": f"{source} {p} by way {s}", "expected_answer": str(p), "is_correct": s < solutions,
            "predicted_answer": str(p) if s < solutions else "-1",
        }
        for p in range(problems)
        for s in range(solutions + wrong)
    ]  # fmt: skip


def by_problem(rows: Rows) -> Counter[str]:
    return Counter(row["problem"] for row in rows)


def test_downsample_caps_sources_and_counts_them(run, rows) -> None:
    source = rows(pool(10, 4) + pool(10, 4, wrong=1, source="gsm8k"))
    ran = run("downsample", input=source, num_rows=30, max_per_source={"gsm8k": 10}, only_correct=True)
    assert ran.manifest["figures"]["by_source"] == {"math": 20, "gsm8k": 10}
    assert ran.manifest["dropped"] == {"not_correct": 10, "not_sampled": 20, "over_source_cap": 30}
    assert set(by_problem(ran.output).values()) == {1, 2}
    assert ran.dropped[0].keys() == {"id", "sample_index", "reason"}
    with pytest.raises(ValueError, match="no row is of aime; there are math, gsm8k"):
        run("downsample", folder="x", input=source, max_per_source={"aime": 1})


def test_downsample_to_so_many_problems(run, rows) -> None:
    source = rows(pool(12, 6) + pool(3, 1, source="rare"))
    ran = run("downsample", input=source, num_rows=18, num_problems=3)
    assert list(by_problem(ran.output).values()) == [6, 6, 6]
    with pytest.raises(ValueError, match="12 of 15 problems have as many"):
        run("downsample", folder="x", input=source, num_rows=26, num_problems=13)
    with pytest.raises(ValueError, match="num_rows says how many"):
        run("downsample", folder="y", input=source, num_problems=3)


def test_sets_that_are_to_be_of_one_size_are_refused_where_rows_lack(run, rows) -> None:
    source = rows(pool(10, 4) + pool(10, 2, wrong=1, source="gsm8k"))
    asked = {"input": source, "only_correct": True, "refuse_fewer": True}
    assert len(run("downsample", num_rows=60, **asked).output) == 60
    words = r"has 60 rows to take from \(math 40, gsm8k 20\), fewer than num_rows=61, which sets that are compared"
    with pytest.raises(ValueError, match=words):
        run("downsample", folder="x", num_rows=61, **asked)
    with pytest.raises(ValueError, match=r"\(math 5, gsm8k 20\), fewer than num_rows=30"):
        run("downsample", folder="y", num_rows=30, max_per_source={"math": 5}, **asked)
    with pytest.raises(ValueError, match="refuse_fewer needs num_rows"):
        run("downsample", folder="z", **asked)


def test_rows_by_what_their_columns_say(run, rows) -> None:
    strategies = ["default", "masked", "subject"]
    source = rows(
        [row | {"strategy": strategies[row["sample_index"]]} for row in pool(5, 3)]
        + [row | {"strategy": strategies[row["sample_index"]]} for row in pool(4, 2, source="gsm8k")]
    )
    only = [{"strategy": "subject"}, {"strategy": "default", "problem_source": "gsm8k"}]
    ran = run("downsample", input=source, only=only)
    assert Counter((row["problem_source"], row["strategy"]) for row in ran.output) == {
        ("math", "subject"): 5,
        ("gsm8k", "default"): 4,
    }
    assert ran.manifest["dropped"] == {"not_asked_for": 14}
    with pytest.raises(
        ValueError, match="only: none of the 23 rows of .* has strategy=hinted and problem_source=math"
    ):
        run("downsample", folder="x", input=source, only=[{"strategy": "hinted", "problem_source": "math"}])
    with pytest.raises(ValueError, match="each must name a column"):
        run("downsample", folder="y", input=source, only=[{}])


def test_a_random_choice_is_the_published_one(run, rows) -> None:
    """NeMo-Skills shuffles all rows and takes the first: each is as likely, whatever problem it is of, and none comes twice."""
    source = rows(pool(1, 60) + pool(20, 2, source="rare"))
    shares = []
    for seed in range(20):
        chosen = run("downsample", folder=f"s{seed}", input=source, num_rows=50, method="random", seed=seed).output
        assert len({(row["id"], row["sample_index"]) for row in chosen}) == 50
        shares.append(sum(row["problem_source"] == "math" for row in chosen))
    assert abs(sum(shares) / len(shares) - 30) < 3, "60 of 100 rows are of one problem"
    fair = run("downsample", folder="fair", input=source, num_rows=50).output
    assert sum(row["problem_source"] == "math" for row in fair) == 10


def test_downsample_of_a_persons_own_file(run, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "a", "answer": "1"}\ntorn\n{"question": "b", "answer": "2"}\n{"question": "a"}\n')
    ran = run("downsample", input=str(file), num_rows=2)
    assert by_problem(ran.output) == {"a": 1, "b": 1}
    assert sorted(ran.reasons) == ["malformed_json", "not_sampled"]


def test_workers_do_not_change_the_choice(run, rows) -> None:
    source = rows(pool(40, 5))
    one, two = (run("downsample", folder=f"w{n}", input=source, num_rows=70, workers=n) for n in (1, 2))
    assert (one.folder / "output.jsonl").read_bytes() == (two.folder / "output.jsonl").read_bytes()


def test_matched_pools(run, rows) -> None:
    first = rows(pool(8, 4, wrong=2))
    second = rows(pool(6, 7)[5:] + pool(4, 1, source="other"))
    left, right = (run("match_coverage", folder=k, first=first, second=second, keep=k) for k in ("first", "second"))
    assert (
        by_problem(left.output)
        == by_problem(right.output)
        == {f"What is {p} in math?": 2 if p == 0 else 4 for p in range(6)}
    )
    assert all(row["is_correct"] for row in left.output) and left.manifest["dropped"] == {
        "not_correct": 16,
        "not_matched": 10,
    }
    fewer = run("match_coverage", folder="f", first=first, second=second, num_rows=7)
    assert sorted(by_problem(fewer.output).values()) == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4, 0.8, 1.0])
@pytest.mark.parametrize("kind", ["mispaired", "wrong_answer"])
def test_noise_at_exact_rates(run, rows, kind: str, rate: float) -> None:
    ran = run("inject_noise", input=rows(pool(25, 4, wrong=4)), kind=kind, rate=rate, num_rows=80)
    noisy = [row for row in ran.output if row.get("noise") == kind]
    assert len(ran.output) == 80 and len(noisy) == round(80 * rate) == ran.manifest["figures"]["noisy"]
    for row in ran.output:
        own = row["generation"].startswith(f"math {row['id'].removeprefix('math')} ")
        if row.get("noise") == "mispaired":
            assert not own and row["solution_of"] != row["id"] and row["is_correct"] is False
            assert row["generation"].startswith(f"math {row['solution_of'].removeprefix('math')} ")
        else:
            assert own and row["is_correct"] is ("noise" not in row)
    assert not (ran.folder / "selected").exists() and ran.manifest["dropped"] == {"not_sampled": 120}
    if kind == "mispaired":
        given = Counter(row["generation"] for row in ran.output)
        assert max(given.values()) == 1, "a solution was given twice"


def test_noise_that_cannot_be_had_is_refused(run, rows) -> None:
    with pytest.raises(
        ValueError, match="80 rows at rate 0.5 need 40 correct and 40 wrong ones; the input has 80 and 20"
    ):
        run("inject_noise", input=rows(pool(20, 4, wrong=1)), kind="wrong_answer", rate=0.5)
    with pytest.raises(ValueError, match=r"rate=1.5; it is a share"):
        run("inject_noise", folder="x", input="x", rate=1.5)


@pytest.mark.parametrize(
    ("stage", "inputs"),
    [("downsample", ["input"]), ("inject_noise", ["input"]), ("match_coverage", ["first", "second"])],
)
@pytest.mark.parametrize("wrong", [{"num_rows": 0}, {"num_rows": -3}, {"seed": -1}])
def test_numbers_below_what_they_may_be(run, stage: str, inputs: list[str], wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must be 1 or more, seed=.* 0 or more"):
        run(stage, **dict.fromkeys(inputs, "x"), **wrong)


def test_rows_that_nobody_graded(run, rows) -> None:
    source, graded = rows([{"id": "1", "problem": "p", "generation": "s"}]), rows(pool(2, 2))
    with pytest.raises(ValueError, match="the input has 0 and 0 by is_correct. Grade the rows first"):
        run("inject_noise", input=source, rate=0.5)
    with pytest.raises(ValueError, match=r"second=.*of 1 rows none has .*only_correct=false"):
        run("match_coverage", first=graded, second=source)


@in_every_form
def test_noise_brings_all_of_the_solution(run, rows, form) -> None:
    """Wherever it is, and with what the row says of it: the length, or a reward."""
    made = [
        form(row | {"reward": float(row["expected_answer"]), "num_generated_tokens": n})
        for n, row in enumerate(pool(9, 1))
    ]
    by_id = {row["id"]: row for row in made}
    ran = run("inject_noise", input=rows([*made[:4], *pool(1, 1, source="plain"), *made[4:]]), rate=1.0)
    for row in ran.output:
        donor = by_id.get(row["solution_of"])
        if donor is None or row["id"] not in by_id:
            continue
        assert written_solution(row) == written_solution(donor) != written_solution(by_id[row["id"]])
        assert (row["reward"], row["num_generated_tokens"]) == (donor["reward"], donor["num_generated_tokens"])
