"""Real pairs of answers to grade: OpenAI's GSM8K model solutions, and MATH-500's and ASDiv's answers, right and wrong."""

import json
import random
import re
from pathlib import Path

DATA = Path(__file__).parents[3] / "shared" / "data"
NEEDS = tuple(DATA / f"{name}.jsonl" for name in ("gsm8k_model_solutions", "math500_test", "asdiv_test"))
Pair = tuple[str | None, str]


def gsm8k_pairs() -> list[Pair]:
    """The 5,276 final answers of the published model solutions, with the right ones."""

    def answer(text: str) -> str | None:
        return text.rsplit("A:", 1)[1].strip() if "A:" in text else None

    rows = [json.loads(line) for line in (DATA / "gsm8k_model_solutions.jsonl").read_text().splitlines()]
    return [
        (answer(solution["solution"]), answer(row["ground_truth"]) or "")
        for row in rows
        for solution in row.values()
        if isinstance(solution, dict)
    ]


def asdiv_pairs() -> list[Pair]:
    """ASDiv's answers as they are written, "9 (apples)", each against the next row's."""
    answers = [str(json.loads(line)["answer"]) for line in (DATA / "asdiv_test.jsonl").read_text().splitlines()]
    return list(zip(answers[1:], answers, strict=False))


def latex_answers() -> list[str]:
    """The distinct answers of MATH-500 that are more than a whole number."""
    rows = [json.loads(line) for line in (DATA / "math500_test.jsonl").read_text().splitlines()]
    answers = dict.fromkeys(str(row["answer"]) for row in rows)
    return [answer for answer in answers if not answer.lstrip("-").isdigit()]


def latex_pairs(count: int, seed: int = 0) -> list[Pair]:
    """Half rewritten and so equal, a quarter slightly wrong, a quarter other answers."""
    rng = random.Random(seed)
    answers = latex_answers()
    pairs: list[Pair] = []
    for i in range(count):
        answer = answers[i % len(answers)]
        turn = i // len(answers) % 4
        if turn < 2:
            pairs.append((rewritten(answer, rng), answer))
        elif turn == 2:
            pairs.append((perturbed(answer, rng), answer))
        else:
            pairs.append((rng.choice(answers), answer))
    return pairs


def mixed_pairs(count: int = 10_000, seed: int = 0) -> list[Pair]:
    """Half GSM8K, half LaTeX, shuffled."""
    pairs = gsm8k_pairs()[: count // 2] + latex_pairs(count - count // 2, seed)
    random.Random(seed).shuffle(pairs)
    return pairs


def rewritten(answer: str, rng: random.Random) -> str:
    """The same answer as someone else would write it."""
    text = rng.choice([str, _slashed, _expanded, _in_dollars, _rooted])(answer)
    if not re.search(r"[,=]|\\text|\\mbox|\\begin|\\in|\\circ|_|\$|\\cup|\\pm", text):
        text = rng.choice(["{}", "{}", "0+{}", "{}+0", "1\\cdot({})", "\\frac{{2({})}}{{2}}"]).format(text)
    return text.replace("\\frac", rng.choice(["\\frac", "\\dfrac"]))


def _slashed(text: str) -> str:
    return re.sub(r"^\\frac\{(\d+)\}\{(\d+)\}$", r"\1/\2", text)


def _expanded(text: str) -> str:
    return re.sub(r"\\frac\{(\d+)\}\{(\d+)\}", lambda m: f"\\frac{{{3 * int(m[1])}}}{{{3 * int(m[2])}}}", text)


def _in_dollars(text: str) -> str:
    return f"${text}$."


def _rooted(text: str) -> str:
    return re.sub(r"(\d+) ?\\sqrt\{(\d+)\}", lambda m: f"\\sqrt{{{int(m[1]) ** 2 * int(m[2])}}}", text)


def perturbed(answer: str, rng: random.Random) -> str:
    """A near miss: a digit, a sign, a bracket or the order is another."""
    digits = [match.start() for match in re.finditer(r"\d", answer)]
    changes = [f"-{answer}"]
    if digits:
        at = rng.choice(digits)
        changes.append(answer[:at] + str((int(answer[at]) + 1) % 10) + answer[at + 1 :])
    for old, new in (("(", "["), ("]", ")"), ("+", "-"), ("\\sqrt", "2\\sqrt"), ("\\pi", "3")):
        if old in answer:
            changes.append(answer.replace(old, new, 1))
    return rng.choice(changes)
