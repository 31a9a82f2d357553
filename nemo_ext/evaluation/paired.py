"""Two evaluations compared problem by problem: what was gained and lost, and whether that is a difference.

compare_evaluations(read_evaluation(Path("evaluate/base")), read_evaluation(Path("evaluate/average")))
->  {"first": "base", "second": "average", "contract_differences": {}, "benchmarks": {"gsm8k": {"points": 4.1, ...}}}
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_ext.evaluation.contract import Contract, compare
from nemo_ext.evaluation.metrics import by_benchmark
from nemo_ext.evaluation.problems import Problem
from nemo_ext.evaluation.scores import SCORES, count_files, read_scores
from nemo_ext.evaluation.stats import (
    detectable_difference,
    difference_in_words,
    holm,
    mcnemar,
    paired_bootstrap,
    paired_interval,
)
from nemo_ext.rows.row import input_files

ALPHA = 0.05


@dataclass(frozen=True)
class Evaluation:
    """A model's answers under a contract, counted by problem."""

    model: str
    contract: Contract
    problems: Mapping[str, Mapping[str, Problem]]
    """Benchmark -> id -> its samples."""
    folder: Path


def evaluation_folders(path: Path) -> list[Path]:
    """The folder of an evaluation, or those of a stage's variants.

    Raises ValueError where there is none.
    """
    if (path / SCORES).is_file():
        return [path]
    if found := sorted(file.parent for file in path.glob(f"*/{SCORES}")):
        return found
    raise ValueError(
        f"{path} is not an evaluation: neither it nor a folder in it has {SCORES}. Give an evaluate stage's folder"
    )


def read_evaluation(folder: Path, workers: int | None = None) -> Evaluation:
    """Raises ValueError where the folder has no scores or rows, or a problem's samples lie apart."""
    scores = read_scores(folder)
    problems: dict[str, dict[str, Problem]] = {}
    for name, group in by_benchmark(count_files(input_files(folder), workers)).items():
        problems[name] = {problem.id: problem for problem in group}
    if not problems:
        raise ValueError(f"{folder} is an evaluation without rows; evaluate again")
    return Evaluation(scores["model"], Contract.from_dict(scores["contract"]), problems, folder)


def compare_evaluations(first: Evaluation, second: Evaluation, allow_mismatch: bool = False) -> dict[str, Any]:
    """Per benchmark that both have, over the problems that both have.

    Raises:
        ValueError: the contracts differ and `allow_mismatch` does not say that this is known; or no problem in common.
    """
    unlike = compare(first.contract, second.contract, allow_mismatch)
    names = first.model, second.model
    if first.model == second.model:  # the same answers under two graders, say
        names = f"{first.model} ({first.folder.name})", f"{second.model} ({second.folder.name})"
    found = {
        name: compared
        for name, problems in first.problems.items()
        if name in second.problems and (compared := compare_problems(*names, problems, second.problems[name]))
    }
    if not found:
        shared = [name for name in first.problems if name in second.problems]
        held = f"they hold {', '.join(first.problems)} and {', '.join(second.problems)}"
        why = f"of {', '.join(shared)} no id has the same text and answer in both" if shared else held
        raise ValueError(f"{first.folder} and {second.folder} have no problem in common: {why}")
    return {
        "first": names[0],
        "second": names[1],
        "folders": [str(first.folder), str(second.folder)],
        "contract_differences": {key: list(pair) for key, pair in unlike.items()},
        "benchmarks": found,
    }


def compare_problems(
    first: str, second: str, before: Mapping[str, Problem], after: Mapping[str, Problem]
) -> dict[str, Any] | None:
    """Accuracies over the problems in both, as second - first in points; None where they share no problem.

    Problems of one id whose text or answer differs are not compared, and counted as `changed`.
    """
    shared = [key for key in before if key in after]
    pairs = [(before[key], after[key]) for key in shared if before[key].content == after[key].content]
    if not pairs:
        return None
    a, b = [left.accuracy for left, _ in pairs], [right.accuracy for _, right in pairs]
    low, high, p = paired_bootstrap(a, b)
    points = (sum(b) - sum(a)) / len(pairs)
    gained, lost = (sum(x < y for x, y in zip(u, v, strict=True)) for u, v in ((a, b), (b, a)))
    if low == high and points in (-1, 0, 1):  # resamples of problems that are all alike have no width
        low, high = paired_interval(gained, lost, len(pairs))
    found: dict[str, Any] = {
        "problems": len(pairs), "changed": len(shared) - len(pairs),
        "only_first": len(before) - len(shared), "only_second": len(after) - len(shared),
        "first": sum(a) / len(pairs), "second": sum(b) / len(pairs),
        "points": 100 * points, "low": 100 * low, "high": 100 * high,
        "gained": gained, "lost": lost,
        "detectable": 100 * detectable_difference(len(pairs), discordant=max(gained + lost, 1) / len(pairs)),
    }  # fmt: skip
    if all(left.num_samples == right.num_samples == 1 for left, right in pairs):
        solved = [value == 1 for value in a], [value == 1 for value in b]
        words = difference_in_words(first, second, *solved, alpha=ALPHA)
        return found | {"test": "exact McNemar", "p": mcnemar(lost, gained), "words": words}
    return found | {"test": "paired bootstrap", "p": p, "words": _in_words(first, second, found, p)}


def compare_all(first: Evaluation, others: Sequence[Evaluation], allow_mismatch: bool = False) -> list[dict[str, Any]]:
    """`compare_evaluations` of the first with each of the others; `p_holm` is p adjusted for how many benchmarks and models
    were looked at: of twenty that are all alike, one has p < 0.05 by chance.

    Raises ValueError as compare_evaluations does.
    """
    comparisons = [compare_evaluations(first, other, allow_mismatch) for other in others]
    each = [found for comparison in comparisons for found in comparison["benchmarks"].values()]
    for found, adjusted in zip(each, holm([found["p"] for found in each]), strict=True):
        found["p_holm"] = adjusted
        if len(each) > 1:
            found["words"] += f" Among {len(each)} comparisons p = {adjusted:.2g} (Holm): {_finding(adjusted)}."
    return comparisons


def compare_pooled(first: Evaluation, others: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """`compare_problems` of the first with each of the others over the problems of all benchmarks together, with `p_holm`.

    Raises ValueError where two have no problem in common.
    """
    found = []
    for other in others:
        compared = compare_problems(first.model, other.model, _pooled(first), _pooled(other))
        if compared is None:
            raise ValueError(f"{first.folder} and {other.folder} have no problem in common")
        found.append(compared)
    adjusted = holm([each["p"] for each in found])
    return [each | {"p_holm": p} for each, p in zip(found, adjusted, strict=True)]


def _pooled(evaluation: Evaluation) -> dict[str, Problem]:
    return {f"{name}/{key}": each for name, of in evaluation.problems.items() for key, each in of.items()}


def _in_words(first: str, second: str, found: Mapping[str, Any], p: float) -> str:
    return (
        f"{second} scores {100 * found['second']:.1f} % and {first} {100 * found['first']:.1f} % on the same "
        f"{found['problems']} problems, averaged over their samples: {found['points']:+.1f} points (95 % interval "
        f"{found['low']:+.1f} to {found['high']:+.1f}), paired bootstrap p = {p:.2g}, {_finding(p)} at {ALPHA:g}."
    )


def _finding(p: float) -> str:
    return "a difference" if p < ALPHA else "no evidence of a difference"


def table(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """What compare_all found as aligned text, one line for each benchmark."""
    heads = (
        "benchmark", "first", "%", "second", "%", "points", "95 % interval", "p", "p (Holm)", "gained", "lost", "detectable",
    )  # fmt: skip
    rows = [heads]
    for each in comparisons:
        for name, of in each["benchmarks"].items():
            rows.append((
                name, each["first"], f"{100 * of['first']:.1f}", each["second"], f"{100 * of['second']:.1f}",
                f"{of['points']:+.1f}", f"{of['low']:+.1f} to {of['high']:+.1f}", f"{of['p']:.2g}", f"{of['p_holm']:.2g}",
                str(of["gained"]), str(of["lost"]), f"{of['detectable']:.1f}",
            ))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    return "\n".join("  ".join(_cells(row, widths)).rstrip() for row in rows)


def _cells(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Names to the left, figures to the right."""
    names = {0, 1, 3}
    return [cell.ljust(widths[i]) if i in names else cell.rjust(widths[i]) for i, cell in enumerate(row)]
