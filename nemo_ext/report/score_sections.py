"""The report's sections about scores: leaderboard, comparisons, levels, checkpoints, published figures.

`found` everywhere: model -> scores.json of its evaluation with its `folder`, as run_folder.scores gives it.
"""

from collections.abc import Sequence
from typing import Any

from nemo_ext.evaluation.contract import MAY_DIFFER, Contract, compare, differences, in_words
from nemo_ext.evaluation.model_names import AVERAGE, is_checkpoint
from nemo_ext.evaluation.paired import ALPHA, Evaluation, compare_all, compare_pooled, read_evaluation
from nemo_ext.evaluation.published import Published, published_scores, why_not_comparable
from nemo_ext.evaluation.stats import wilson

Found = dict[str, dict[str, Any]]
KINDS = ("level", "subject", "source")
MAX_LABELS = 16  # of a panel of bars


def accuracy(found: Found) -> list[dict[str, Any]]:
    """A row per model and benchmark, with the metrics of several samples, their spread and the graders' shares where there
    are several."""
    keys = ("correct", "total", "accuracy", "low", "high", "no_answer", "truncated")
    return [
        {
            "model": model,
            "benchmark": name,
            **{key: score[key] for key in keys},
            "metrics": several(score),
            "spread": score.get("seeds", {}).get("std"),
            "verdicts": score.get("verdicts", {}),
        }
        for model, each in found.items()
        for name, score in each["benchmarks"].items()
    ]


def several(score: dict[str, Any]) -> dict[str, dict[str, float]]:
    """pass@k and majority@k of the largest k; none for one sample."""
    metrics = score.get("metrics", {})
    by_name: dict[str, tuple[int, str]] = {}
    for name in metrics:
        kind, _, k = name.partition("@")
        if k.isdecimal() and int(k) > 1:
            by_name[kind] = max(by_name.get(kind, (0, "")), (int(k), name))
    return {name: metrics[name] for _, name in by_name.values()}


def overall(scores: dict[str, Any]) -> dict[str, Any]:
    """All problems of all benchmarks together, each counted once. The interval of several benchmarks is Wilson's, which for
    several samples of a problem is wider than need be."""
    each = list(scores["benchmarks"].values())
    problems = sum(score.get("problems", score["total"]) for score in each)
    solved = sum(score["accuracy"] * score.get("problems", score["total"]) for score in each)
    low, high = (each[0]["low"], each[0]["high"]) if len(each) == 1 else wilson(round(solved), problems)
    return {"accuracy": solved / problems, "low": low, "high": high, "problems": problems}


def leaderboard(found: Found) -> dict[str, Any] | None:
    """The best first, over the benchmarks that every model has. Who was scored under other terms than the model that others
    are compared with has no place: `apart` has the terms."""
    if len(found) < 2:
        return None
    benchmarks = [
        name
        for name in next(iter(found.values()))["benchmarks"]
        if all(name in e["benchmarks"] for e in found.values())
    ]
    if not benchmarks:
        return None
    ours = found[_reference(list(found))]
    rows: list[dict[str, Any]] = []
    for model, each in found.items():
        shared = {"benchmarks": {name: each["benchmarks"][name] for name in benchmarks}}
        rows.append({"model": model, **overall(shared), "scores": [shared["benchmarks"][name] for name in benchmarks],
                     "apart": ", ".join(_unlike(ours, each))})  # fmt: skip
    rows.sort(key=lambda row: (bool(row["apart"]), -row["accuracy"]))
    return {"benchmarks": benchmarks, "rows": rows}


def comparisons(found: Found, allow_mismatch: bool = False) -> dict[str, Any] | None:
    """The averaged model, or the last one, with each of the others, problem by problem.

    Checkpoints are left out but for the last. What may not be compared is named with the terms that differ.
    """
    models = [name for name in found if not is_checkpoint(name)] + _last_checkpoint(found)
    if len(models) < 2:
        return None
    first = _reference(models)
    others: list[Evaluation] = []
    refused = []
    for name in models:
        if name == first:
            continue
        unlike = _unlike(found[first], found[name])
        if unlike and not allow_mismatch:
            refused.append({"model": name, "terms": ", ".join(unlike)})
        else:
            others.append(read_evaluation(found[name]["folder"]))
    rows = compare_all(read_evaluation(found[first]["folder"]), others, allow_mismatch) if others else []
    return {"first": first, "rows": rows, "refused": refused}


def _reference(models: Sequence[str]) -> str:
    """The model that the others are compared with."""
    own = [name for name in models if not is_checkpoint(name)] or models
    return AVERAGE if AVERAGE in models else own[-1]


def _unlike(ours: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The terms in which two evaluations differ."""
    apart = differences(Contract.from_dict(ours["contract"]), Contract.from_dict(other["contract"]))
    return [term for term in apart if term not in MAY_DIFFER]


def early_finish_notes(found: Found) -> list[str]:
    """Names the evaluations whose accuracy and pass@k rest on samples that were not chosen at random."""
    return [
        f"{name}: {_drawn(each)} samples were drawn, without those that could change no majority (early finish). Majorities "
        "are those of all samples; accuracy and pass@k are not."
        for name, each in found.items()
        if "early finish" in each["contract"].get("search", "") and each.get("num_samples", 1) > 1
    ]


def _drawn(scores: dict[str, Any]) -> str:
    """`622 of 750`"""
    each = scores["benchmarks"].values()
    asked = scores["contract"]["num_samples"] * sum(score["problems"] for score in each)
    return f"{sum(score['total'] for score in each):,} of {asked:,}"


def _last_checkpoint(found: Found) -> list[str]:
    steps = {
        name: each["step"] for name, each in found.items() if is_checkpoint(name) and each.get("step") is not None
    }
    return [max(steps, key=steps.__getitem__)] if steps else []


def breakdown(found: Found) -> list[dict[str, Any]]:
    """Accuracy by level, subject and source of each benchmark that has them, checkpoints left out."""
    shown = {name: each for name, each in found.items() if not is_checkpoint(name)}
    panels: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for model, each in shown.items():
        for benchmark, score in each["benchmarks"].items():
            for kind in KINDS:
                groups = score.get("by", {}).get(kind, {})
                if 1 < len(groups) <= MAX_LABELS:
                    panels.setdefault((benchmark, kind), {})[model] = groups
    return [_panel(benchmark, kind, models) for (benchmark, kind), models in panels.items()]


def _panel(benchmark: str, kind: str, models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    labels = list(dict.fromkeys(label for groups in models.values() for label in groups))
    rows = {model: [groups.get(label) for label in labels] for model, groups in models.items()}
    return {"benchmark": benchmark, "kind": kind, "labels": labels, "models": rows}


def checkpoints(found: Found) -> dict[str, Any] | None:
    """Accuracy over all benchmarks at each step that was evaluated, and of the average.

    `best`: the step with the highest; the other points have `against`, their paired comparison with it over the problems of
    all benchmarks, None where their contracts differ. `alike`: how many of these show no difference.
    """
    by_step = {
        each["step"]: each for name, each in found.items() if is_checkpoint(name) and each.get("step") is not None
    }
    if len(by_step) < 2:
        return None
    points = [{"step": step, **overall(by_step[step])} for step in sorted(by_step)]
    best = max(points, key=lambda point: point["accuracy"])["step"]
    others = [step for step in sorted(by_step) if step != best and not _unlike(by_step[best], by_step[step])]
    first = read_evaluation(by_step[best]["folder"])
    compared = compare_pooled(first, [read_evaluation(by_step[step]["folder"]) for step in others])
    against = dict(zip(others, compared, strict=True))
    alike = sum(each["p_holm"] >= ALPHA for each in compared)
    shown = [point | {"against": against.get(point["step"])} for point in points]
    average = overall(found[AVERAGE]) if AVERAGE in found else None
    return {"points": shown, "average": average, "best": best, "alike": alike}


def published(found: Found, names: Sequence[str]) -> list[dict[str, Any]]:
    """Published scores of `names`, beside ours on the same benchmark, and what keeps the two apart."""
    ours = AVERAGE if AVERAGE in found else next(reversed(found), None)
    rows = []
    for each in published_scores(names):
        score = found[ours]["benchmarks"].get(each.benchmark) if ours else None
        rows.append({**_told(each), "model_here": ours, "ours": score, "apart": _apart(found, ours, score, each)})
    return rows


def _told(each: Published) -> dict[str, Any]:
    keys = ("model", "benchmark", "score", "problems", "metric", "grader", "source", "note")
    return {key: getattr(each, key) for key in keys}


def _apart(found: Found, ours: str | None, score: dict[str, Any] | None, each: Published) -> list[str]:
    if ours is None or score is None:
        return ["not evaluated here"]
    return why_not_comparable(each, Contract.from_dict(found[ours]["contract"]), score)


def contract_notes(found: Found, allow_mismatch: bool = False) -> list[str]:
    """Which evaluations differ in their terms from the first, and in what."""
    contracts = [(name, Contract.from_dict(each["contract"])) for name, each in found.items()]
    notes = []
    for name, contract in contracts[1:]:
        try:
            unlike = compare(contracts[0][1], contract, allow_mismatch)
            if unlike:
                notes.append(f"{contracts[0][0]} and {name} were scored under different terms: {in_words(unlike)}.")
        except ValueError as error:
            notes.append(f"{contracts[0][0]} and {name}: {error}")
    return notes
