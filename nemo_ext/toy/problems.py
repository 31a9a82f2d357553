r"""Word problems and small equations that a million-parameter model can learn to solve step by step.

Example (source `gsm8k`, split `train`):

    problem          Ava has 7 pens. Ava buys 3 boxes of 4 pens. How many pens does Ava have now?
    solution         3 * 4 = 12. 7 + 12 = 19. The answer is \boxed{19}.
    expected_answer  19
    key              boxes/7/3/4

A problem is a kind, its numbers and a wording. The split is a hash of kind and numbers, so whatever the names and the
wording, no problem of one split states the same task as one of another: disjoint by construction.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SPLITS = ("train", "validation", "test")
NAMES = "Ava Ben Cal Dia Eli Fay Gus Hal Ida Jon".split()
ITEMS = "pens books coins cards apples shells stamps beads".split()
NUMBER_FIELDS = frozenset("abcpq")
Numbers = tuple[int, int, int]


@dataclass(frozen=True)
class ToyProblem:
    problem: str
    solution: str
    expected_answer: str
    source: str
    """`gsm8k` (word problems) or `math` (expressions and equations)."""
    key: str
    """Kind and numbers: equal keys mean the same task in other words."""


@dataclass(frozen=True)
class Kind:
    source: str
    wordings: tuple[str, ...]
    """Templates over {name}, {other}, {item}, {a}, {b}, {c} and {p} = b * c, {q} = b * c + a."""
    steps: Callable[[int, int, int], list[tuple[int, str, int, int]]]
    """(left, operator, right, result) of each step; the last result is the answer."""


KINDS: dict[str, Kind] = {
    "boxes": Kind(
        "gsm8k",
        (
            "{name} has {a} {item}. {name} buys {b} boxes of {c} {item}. How many {item} does {name} have now?",
            "{name} starts with {a} {item} and gets {b} boxes with {c} {item} in each. How many {item} is that in total?",
        ),
        lambda a, b, c: [(b, "*", c, b * c), (a, "+", b * c, a + b * c)],
    ),
    "bags": Kind(
        "gsm8k",
        (
            "There are {b} bags with {c} {item} each, and {a} {item} on the table. How many {item} are there?",
            "A shop has {b} bags that hold {c} {item} each and {a} loose {item}. How many {item} does the shop have?",
        ),
        lambda a, b, c: [(b, "*", c, b * c), (b * c, "+", a, b * c + a)],
    ),
    "gives": Kind(
        "gsm8k",
        (
            "{name} has {a} {item} and finds {b} more. Then {name} gives {c} {item} to {other}. How many {item} are left?",
            "After finding {b} {item}, {name} adds them to {a} {item} and hands {c} to {other}. How many {item} remain?",
        ),
        lambda a, b, c: [(a, "+", b, a + b), (a + b, "-", c, a + b - c)],
    ),
    "shares": Kind(
        "gsm8k",
        (
            "{name} puts {p} {item} into {b} equal boxes and adds {a} {item} to one box. How many {item} are in that box?",
            "{p} {item} are shared by {b} friends. {name} is one of them and already has {a}. How many has {name} now?",
        ),
        lambda a, b, c: [(b * c, "/", b, c), (c, "+", a, c + a)],
    ),
    "value": Kind(
        "math",
        ("Compute ${a} + {b} \\cdot {c}$.", "What is the value of ${a} + {b} \\cdot {c}$?"),
        lambda a, b, c: [(b, "*", c, b * c), (a, "+", b * c, a + b * c)],
    ),
    "equation": Kind(
        "math",
        ("Solve ${b}x + {a} = {q}$ for $x$.", "Find $x$ if ${b}x + {a} = {q}$."),
        lambda a, b, c: [(b * c + a, "-", a, b * c), (b * c, "/", b, c)],
    ),
    "function": Kind(
        "math",
        ("If $f(x) = {b}x + {a}$, what is $f({c})$?", "Let $f(x) = {b}x + {a}$. Find $f({c})$."),
        lambda a, b, c: [(b, "*", c, b * c), (b * c, "+", a, b * c + a)],
    ),
    "sequence": Kind(
        "math",
        (
            "A sequence starts at ${a}$ and grows by ${b}$. What is it after ${c}$ steps?",
            "Start at ${a}$ and add ${b}$ exactly ${c}$ times. What is the result?",
        ),
        lambda a, b, c: [(c, "*", b, b * c), (a, "+", b * c, a + b * c)],
    ),
}

SOURCES = ("gsm8k", "math")


def make(kind: str, numbers: Numbers, rng: random.Random, wording: int | None = None) -> ToyProblem:
    """The problem with these numbers; names, items and (unless given) the wording are drawn from `rng`."""
    a, b, c = numbers
    spec = KINDS[kind]
    name, other = rng.sample(NAMES, 2)
    text = spec.wordings[rng.randrange(len(spec.wordings)) if wording is None else wording]
    # replaced one by one, because LaTeX braces would trip str.format
    values = {
        "name": name,
        "other": other,
        "item": rng.choice(ITEMS),
        "a": a,
        "b": b,
        "c": c,
        "p": b * c,
        "q": b * c + a,
    }
    for field, value in values.items():
        text = text.replace("{" + field + "}", str(value))
    steps = spec.steps(a, b, c)
    solution = " ".join(f"{x} {op} {y} = {z}." for x, op, y, z in steps)
    answer = str(steps[-1][3])
    return ToyProblem(text, f"{solution} The answer is \\boxed{{{answer}}}.", answer, spec.source, _key(kind, numbers))


def _key(kind: str, numbers: Numbers) -> str:
    return "/".join([kind, *map(str, numbers)])


def split_of(key: str) -> str:
    """85 % train, 5 % validation, 10 % test, by a hash of kind and numbers."""
    percent = hashlib.sha256(key.encode()).digest()[0] * 100 // 256
    return "train" if percent < 85 else "validation" if percent < 90 else "test"


def draw_numbers(rng: random.Random) -> Numbers:
    b, c = rng.randint(2, 9), rng.randint(2, 9)
    return rng.randint(max(2, c - b + 1), 20), b, c  # a + b > c, so no answer is negative


def draw_large_numbers(rng: random.Random) -> Numbers:
    """Numbers with which every number of a problem's text has 3 to 5 digits, b * c + a included."""
    while True:
        b = rng.randint(100, 999)
        c = rng.randint(100, min(999, 99_899 // b)) if b * 100 <= 99_899 else 0
        a = rng.randint(100, 99_999 - b * c)
        if c and a + b > c:  # no answer is negative
            return a, b, c


def stream(split: str, source: str, seed: int, large: bool = False) -> Iterator[ToyProblem]:
    """Endless problems of one split and source, reproducible from `seed`; tasks repeat in other words.

    `large`: with numbers of 3 to 5 digits, which a tiny model can copy into a program and cannot multiply.
    """
    rng = random.Random(f"{seed}/{split}/{source}" + "/large" * large)
    kinds = [name for name, kind in KINDS.items() if kind.source == source]
    while True:
        kind, numbers = rng.choice(kinds), (draw_large_numbers if large else draw_numbers)(rng)
        if split_of(_key(kind, numbers)) == split:
            yield make(kind, numbers, rng)


def distinct(split: str, source: str, count: int, seed: int, large: bool = False) -> list[ToyProblem]:
    """`count` problems that are all different tasks.

    Raises:
        ValueError: the split has too few of them.
    """
    found: dict[str, ToyProblem] = {}
    since_new = 0
    for problem in stream(split, source, seed, large):
        since_new = since_new + 1 if problem.key in found else 0
        found.setdefault(problem.key, problem)
        if len(found) == count:
            break
        if since_new == 20_000:  # a few thousand tasks exist: by now every one has come up
            raise ValueError(
                f"toy split {split!r} of {source!r} has only {len(found)} different problems, not {count}"
            )
    return list(found.values())


def paraphrase(problem: ToyProblem, rng: random.Random) -> ToyProblem:
    """The same task in its other wording, with other names and items: what decontamination must catch."""
    kind, *numbers = problem.key.split("/")
    a, b, c = map(int, numbers)
    current = next(i for i, text in enumerate(KINDS[kind].wordings) if _pattern(text).fullmatch(problem.problem))
    return make(kind, (a, b, c), rng, wording=1 - current)


def _pattern(wording: str) -> re.Pattern[str]:
    """A wording as a pattern: its fields become groups of word characters.

    Repeated numbers must agree; names and items need not, since a small teacher mixes them up and the task is the same.
    """
    seen: set[str] = set()
    parts = []
    for piece in re.split(r"(\{[a-z]+\})", wording):
        if re.fullmatch(r"\{[a-z]+\}", piece):
            field = piece[1:-1]
            again = f"(?P={field})" if field in NUMBER_FIELDS else r"\w+?"
            parts.append(again if field in seen else rf"(?P<{field}>\w+?)")
            seen.add(field)
        else:
            parts.append(re.escape(piece))
    return re.compile("".join(parts))


def identify(text: str) -> str | None:
    """The key of a problem text in any known wording, or None: the ground truth contamination is measured against."""
    for kind, spec in KINDS.items():
        for wording in spec.wordings:
            match = _pattern(wording).fullmatch(text.strip())
            if match:
                return _key_from(kind, match.groupdict())
    return None


def _key_from(kind: str, fields: dict[str, str]) -> str | None:
    numbers = {name: value for name, value in fields.items() if name in NUMBER_FIELDS}
    if not all(value.isdigit() for value in numbers.values()):
        return None
    values = {name: int(value) for name, value in numbers.items()}
    a, b = values["a"], values["b"]
    if "c" in values:
        return _key(kind, (a, b, values["c"]))
    product = values["p"] if "p" in values else values["q"] - a
    return _key(kind, (a, b, product // b)) if b and product % b == 0 else None
