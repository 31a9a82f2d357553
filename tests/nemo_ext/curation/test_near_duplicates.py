import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from nemo_ext.curation.duplicates import near
from nemo_ext.curation.duplicates.near import candidate_pairs, near_duplicates
from nemo_ext.curation.duplicates.problem_sketch import band_hashes, normalised, num_bands, shingles, telling
from nemo_ext.rows.row import dumps

DATA = Path(__file__).parents[4] / "shared" / "data"
PENS = "Ava has 12 pens. She buys 3 boxes of 4 pens each and gives 5 pens to her brother Ben. How many pens does Ava have now?"


def found(problems: list[str], folder: Path, threshold: float = 0.8, workers: int = 1) -> list[int]:
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join(dumps({"id": i, "problem": text}) + b"\n" for i, text in enumerate(problems)))
    return near_duplicates([path], threshold, workers).first_row.tolist()


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (PENS.upper(), True),
        (PENS.replace(".", " .").replace("?", ""), True),
        (PENS.replace("Ben", "Sam"), True),
        (PENS.replace("brother", "sister"), True),
        (PENS.replace("buys", "then buys"), True),
        (PENS.replace("12", "$12$"), True),
        (PENS.replace("12", "13"), False),
        (PENS.replace("12", "4").replace("of 4", "of 12"), True),  # the same numbers: read, and alike
        (PENS.replace("How many pens", "How many more pens"), False),
        (PENS.replace("gives 5", "gives five"), False),
        ("A train leaves at noon and travels 60 miles.", False),
    ],
)
def test_near_and_not(other: str, same: bool, tmp_path: Path) -> None:
    assert found([PENS, other], tmp_path) == [-1, 0 if same else -1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"Find $\sin 30$ in degrees, and explain the steps.", r"Find $\cos 30$ in degrees, and explain the steps."),
        ("Compute $12 + 3$ and show the work in full.", "Compute $12 - 3$ and show the work in full."),
        ("What is the largest of the primes below 100?", "What is the smallest of the primes below 100?"),
        ("Find all x with x^2 + 3x = 4 in the reals.", "Find all x with x^3 + 2x = 4 in the reals.") if False else
        ("Find all x with x^2 + 3x = 4 in the reals.", "Find all x with x^2 - 3x = 4 in the reals."),
    ],
)  # fmt: skip
def test_one_telling_word_makes_another_problem(one: str, other: str, tmp_path: Path) -> None:
    assert found([one, other], tmp_path, 0.5) == [-1, -1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is the remainder when $10!$ is divided by 7?", "What is the remainder when $10$ is divided by 7?"),
        ("What is the remainder when $n!$ is divided by 7?", "What is the remainder when $n$ is divided by 7?"),
        ("Find $f'(2)$ where f(x)=x^3 for all x.", "Find $f(2)$ where f(x)=x^3 for all x."),
        ("Find $f''(2)$ where f(x)=x^3 for all x.", "Find $f'(2)$ where f(x)=x^3 for all x."),
        ("Evaluate $|x|$ for $x=-3$ and explain.", "Evaluate $x$ for $x=-3$ and explain."),
        (r"Solve it on $[0,2\pi)$ for all real x.", r"Solve it on $(0,2\pi]$ for all real x."),
        ("Expand $(x+1)(x+2)$ into a sum of powers.", "Expand $x+1(x+2)$ into a sum of powers."),
        ("Expand $(x+1)(x+2)$ into a sum of powers.", "Expand $(x+1(x+2))$ into a sum of powers."),
        ("A has 3 apples and B has 5. How many has A?", "A has 3 apples and B has 5. How many has B?"),
    ],
)
def test_one_mark_makes_another_problem(one: str, other: str, tmp_path: Path) -> None:
    assert found([one, other], tmp_path, 0.5) == [-1, -1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A train leaves at noon! How far does it go?", "a train leaves at noon. How far does it go?"),
        (r"Find \(x^2\) when Sam's x is 2, and I know it.", "Find $x^2$ when Sams x is 2, and i know it."),
        ("So far. A boy has a dog. How old is it?", "SO FAR. A BOY HAS A DOG. HOW OLD IS IT?"),
        ("Take a string of length 9. A's end is cut.", "Take a string of length 9: A's end is cut!"),
    ],
)
def test_punctuation_is_no_mark(one: str, other: str, tmp_path: Path) -> None:
    assert found([one, other], tmp_path, 0.5) == [-1, 0]


def test_latex_dressing_is_nothing() -> None:
    assert normalised(r"Find $\dfrac{1}{2}$, \left( x \right)!") == normalised(r"find \frac{1}{2} (x)")
    assert telling(normalised("a 45-foot rope and 3 - 2")) == ("-", "2", "3", "45")


def similar(one: str, other: str) -> float:
    first, second = shingles(one.encode()), shingles(other.encode())
    return len(np.intersect1d(first, second)) / len(np.union1d(first, second))


def test_nothing_goes_for_what_has_gone(tmp_path: Path) -> None:
    """b is near a, c is near b but not a: b goes, c stays."""
    words = [f"word{chr(97 + i)}{chr(97 + i)}" for i in range(20)]
    a, b, c = (" ".join([*words[:-k], *[f"other{chr(97 + j)}" for j in range(k)]] if k else words) for k in (0, 2, 5))
    threshold = min(similar(a, b), similar(b, c)) - 0.01
    assert similar(a, c) < threshold
    assert found([a, b, c], tmp_path, threshold) == [-1, 0, -1]


def test_samples_of_a_problem_stay_or_go_together(tmp_path: Path) -> None:
    assert found([PENS, PENS + " ", PENS.upper(), PENS, PENS.upper(), "Another one?"], tmp_path) == [
        -1,
        -1,
        0,
        -1,
        0,
        -1,
    ]


def test_bands_find_what_is_at_the_threshold() -> None:
    assert num_bands(0.8) == (21, 6)
    for threshold in (0.5, 0.7, 0.9, 1.0):
        bands, rows = num_bands(threshold)
        assert bands * rows <= 128 and 1 - (1 - threshold**rows) ** bands >= 0.99
    assert len(set(band_hashes([normalised(PENS)] * 2, 0.8).tobytes()[: 21 * 8])) > 20
    assert (band_hashes([PENS, PENS], 0.8)[0] == band_hashes([PENS], 0.8)[0]).all(), "alone or in a batch"


def test_pairs_grow_with_problems_not_with_their_square() -> None:
    pairs = candidate_pairs(np.zeros((2000, 3), np.uint64))
    assert len(pairs) < 5 * 2000 + 1 and (pairs[:, 0] < pairs[:, 1]).all() and (np.diff(pairs[:, 1]) >= 0).all()
    assert len(candidate_pairs(np.arange(30, dtype=np.uint64).reshape(10, 3))) == 0
    assert len(candidate_pairs(np.zeros((0, 3), np.uint64))) == 0


def test_same_with_any_workers_and_however_often_it_tidies_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    problems = [
        PENS.replace("12", str(rng.randint(1, 40))).replace("Ben", rng.choice(["Ben", "Sam", "Joe"]))
        for _ in range(100)
    ]
    alone = found(problems, tmp_path)
    assert found(problems, tmp_path, workers=2) == alone
    monkeypatch.setattr(near, "_COMPACT_EVERY", 7)
    assert found(problems, tmp_path) == alone
    for row, first in enumerate(alone):
        numbers = [re.findall(r"\d+", problems[i]) for i in (row, first)]
        assert first == -1 or (first < row and alone[first] == -1 and numbers[0] == numbers[1])


def test_planted_near_duplicates_of_gsm8k_are_found(tmp_path: Path) -> None:
    if not DATA.exists():
        pytest.skip(f"{DATA} is missing")
    questions = [json.loads(line)["question"] for line in (DATA / "gsm8k_test.jsonl").read_text().splitlines()][:400]
    near_copies = [
        text.replace(" the ", " this ", 1).upper() for text in questions if " the " in text and len(text) > 150
    ]
    other = [re.sub(r"\d+", lambda match: str(int(match[0]) + 1), text, count=1) for text in questions[:100]]
    result = found([*questions, *near_copies, *[text for text in other if text not in questions]], tmp_path)
    planted = result[len(questions) : len(questions) + len(near_copies)]
    assert sum(first >= 0 for first in planted) >= 0.97 * len(near_copies), "not those where a letter is a name"
    assert sum(first >= 0 for first in result[: len(questions)]) == 0
    assert sum(first >= 0 for first in result[len(questions) + len(near_copies) :]) == 0


def test_an_empty_file(tmp_path: Path) -> None:
    assert found([], tmp_path) == []
