"""Grade stored generations again, by several graders side by side, and score them. No model is asked, no GPU is needed.

In:  the folder of an evaluate, search, judge_answers or rescore stage; or rows of your own with `generation` and
     `expected_answer`, such as NeMo-Skills' output-rs*.jsonl, the samples of a problem in any order
Out: the row and {"sample": 0, "predicted_answer": "19", "is_correct": true, "verdicts": {"symbolic": true, "hendrycks":
     false}}; scores.json as evaluate has it, with the contract of these graders and how far any two of them are apart.
     Rows without a known answer or without a solution are dropped: no_expected_answer, no_generation.
"""

import atexit
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.records.manifest import Facts
from recipes.stage import RowStage, row_files

if TYPE_CHECKING:
    from nemo_ext.evaluation.contract import Contract
    from nemo_ext.evaluation.problems import Problem
    from nemo_ext.evaluation.verdicts import GraderSet
    from nemo_ext.rows.passes import RowFunction
    from nemo_ext.rows.row import Row
    from nemo_ext.rows.row_input import RowFiles


@dataclass(kw_only=True)
class Config(RowStage):
    input: str = field(default=MISSING, metadata={"path": True})
    graders: list[str] = field(default_factory=lambda: ["symbolic", "hendrycks", "integer"])
    """Graders of nemo_ext/evaluation/verdicts.py: symbolic, math_verify (hundreds of times slower), hendrycks, integer,
    integer_mod_<n>, metamath, numina, or <grader>@<extractor>."""
    decides: str | None = None
    """The grader whose verdict is is_correct; judge: what a judge_answers stage decided. None: the first."""
    extractor: str | None = None
    """boxed, default, the_answer_is, hash or letter. None: the evaluation's own, or default for rows from elsewhere."""
    benchmark: str | None = None
    """What rows without `benchmark` are called. None: problem_source, or `rows`."""
    model: str | None = None
    """What the model is called. None: as in the evaluation, or the input's name."""
    timeout_s: float = 1.0
    """CPU seconds a pair that needs computer algebra may take; then no verdict is given."""


def check(cfg: Config) -> None:
    from nemo_ext.evaluation.verdicts import JUDGE, check_graders

    check_graders(f"stages.{cfg.name}", cfg.graders, cfg.extractor or "default")
    if cfg.decides is not None and cfg.decides not in (*cfg.graders, JUDGE):
        raise ValueError(f"stages.{cfg.name}.decides={cfg.decides!r}; it may be {JUDGE} or one of {list(cfg.graders)}")
    if cfg.shards != 1 or cfg.timeout_s <= 0:
        got = f"shards={cfg.shards}, timeout_s={cfg.timeout_s}"
        raise ValueError(f"stages.{cfg.name}: {got}; this stage is not split (set workers), and timeout_s is above 0")


def run(cfg: Config) -> Facts:
    from nemo_ext.evaluation.scores import SCORES, count_files, read_scores, scores_file_behind, write_scores
    from nemo_ext.grading.equal import grader_version
    from nemo_ext.records.files import sha256_json
    from nemo_ext.rows.grouping import GROUP, grouped
    from nemo_ext.rows.passes import map_rows
    from nemo_ext.rows.row import require_rows

    folder, files, source = Path(cfg.output_dir), one_evaluation(cfg), _source(cfg)
    scores_file = scores_file_behind(source)
    earlier = None if scores_file is None else read_scores(scores_file.parent)
    extractor = cfg.extractor or (earlier["contract"]["extractor"] if earlier else "default")
    judge = _judge(source)
    make = partial(make_regrader, tuple(cfg.graders), cfg.decides, extractor, cfg.timeout_s, judge, cfg.benchmark)
    with grouped(files, folder, cfg.workers) as ordered:
        rests_on = sha256_json([extractor, judge, grader_version()])
        mapped = map_rows(folder, ordered, make, workers=cfg.workers, group_by=GROUP, rests_on=rests_on)
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    problems = count_files(mapped.outputs, cfg.workers)
    model = cfg.model or (earlier["model"] if earlier else source.name)
    contract = _contract(cfg, earlier, extractor, max(problem.num_samples for problem in problems))
    scores = write_scores(folder, model, contract, problems, earlier.get("step") if earlier else None)
    accuracies = {name: f"{100 * score['accuracy']:.1f} %" for name, score in scores["benchmarks"].items()}
    figures = accuracies | agreement_in_words(problems)
    inputs = [*files, *([] if scores_file is None else [scores_file])]
    outputs = [*mapped.outputs, folder / SCORES]
    return mapped.facts(files, inputs=inputs, outputs=outputs, figures=figures)


def _source(cfg: Config) -> Path:
    path = Path(cfg.input)
    return path if path.is_dir() else path.parent


def one_evaluation(cfg: Config) -> "RowFiles":
    """The input's files. Raises ValueError for several evaluations, whose rows would count as samples of one."""
    from nemo_ext.evaluation.scores import SCORES

    below = (
        sorted(each.parent.name for each in Path(cfg.input).glob(f"*/{SCORES}")) if Path(cfg.input).is_dir() else []
    )
    if below and not (Path(cfg.input) / SCORES).is_file():
        raise ValueError(f"{cfg.input} holds several evaluations; give one of them: {cfg.input}/{{{','.join(below)}}}")
    return row_files(cfg, cfg.input)


def _judge(source: Path) -> dict[str, Any] | None:
    """The manifest of a judge_answers stage, if the rows come from one."""
    from nemo_ext.records import manifest

    found = manifest.read(source) if (source / manifest.MANIFEST).is_file() else {}
    return found if found.get("uses") == "judge_answers" else None


def _contract(cfg: Config, earlier: dict[str, Any] | None, extractor: str, num_samples: int) -> "Contract":
    from nemo_ext.evaluation.contract import UNKNOWN, Contract
    from nemo_ext.evaluation.verdicts import JUDGE
    from nemo_ext.grading.equal import grader_version

    grader, version = cfg.decides or cfg.graders[0], grader_version()
    if grader == JUDGE and (judge := _judge(_source(cfg))) is not None:
        version = f"{version} judge {judge['models']} {judge['prompts']}"
    terms = {"extractor": extractor, "grader": grader, "grader_version": version}
    if earlier is not None:
        return Contract.from_dict(earlier["contract"] | terms)
    return Contract(**UNKNOWN | terms | {"num_samples": num_samples})


def agreement_in_words(problems: "list[Problem]") -> dict[str, str]:
    """`symbolic - hendrycks` -> by how many points the first scores higher, and which samples only one calls correct."""
    from nemo_ext.evaluation.metrics import agreement

    return {
        f"{each['first']} - {each['second']}": f"{each['points']:+.2f} points ({each['only_first']:,} and "
        f"{each['only_second']:,} of {each['samples']:,} samples by one alone)"
        for each in agreement(problems)
    }


def make_regrader(
    names: tuple[str, ...],
    decides: str | None,
    extractor: str,
    timeout_s: float,
    judge: dict[str, Any] | None,
    benchmark: str | None,
) -> "RowFunction":
    from nemo_ext.evaluation.verdicts import GraderSet

    graders = GraderSet(names, extractor, timeout_s)
    atexit.register(graders.close)
    return partial(_regrade, graders, decides, extractor, judge is not None, benchmark)


def _regrade(
    graders: "GraderSet",
    decides: str | None,
    extractor: str,
    judged: bool,
    benchmark: str | None,
    rows: "list[Row]",
    _: Counter[str],
) -> "Iterator[tuple[Row, str | None]]":
    from nemo_ext.grading.answers import answer_of, predicted_answer, reason_not_graded

    expected = [answer_of(row.get("expected_answer")) for row in rows]
    named = [_named(row, answer, benchmark) for row, answer in zip(rows, expected, strict=True)]
    reasons = [
        reason_not_graded(row, answer, predicted_answer(row, extractor))
        for row, answer in zip(rows, expected, strict=True)
    ]
    columns = iter(graders.columns([row for row, reason in zip(named, reasons, strict=True) if reason is None]))
    seen: Counter[tuple[str, str]] = Counter()
    for row, reason in zip(named, reasons, strict=True):
        key = (str(row["benchmark"]), str(row["id"]))
        seen[key] += 1
        if reason is not None:
            yield row, reason
            continue
        graded = next(columns)
        graded["verdicts"] |= _judgement(row, judged)
        if decides is not None:
            graded["is_correct"] = graded["verdicts"].get(decides) is True
        yield row | {"sample": seen[key] - 1} | graded, None


def _named(row: "Row", expected: str | None, benchmark: str | None) -> "Row":
    from nemo_ext.rows.row import content_id

    name = row.get("benchmark") or benchmark or row.get("problem_source") or "rows"
    own = row.get("id")
    named = content_id(str(row.get("problem"))) if own in (None, "") else str(own)
    return row | {"benchmark": str(name), "id": named, "expected_answer": expected}


def _judgement(row: "Row", judged: bool) -> dict[str, bool | None]:
    """What a judge said: of a judge_answers stage its replies in both orders, or, where it was not asked because rules had
    decided or there was no answer, what they had decided; of an earlier rescore, what that has of it."""
    from nemo_ext.evaluation.verdicts import JUDGE
    from nemo_ext.prompts.replies import verdict

    if isinstance(replies := row.get("judge_replies"), list):
        return {JUDGE: verdict.agreed(reply if isinstance(reply, str) else None for reply in replies)}
    if judged:
        return {JUDGE: row.get("is_correct") is True}
    earlier = row.get("verdicts")
    return (
        {JUDGE: earlier[JUDGE]}
        if isinstance(earlier, dict) and isinstance(earlier.get(JUDGE, ""), bool | None)
        else {}
    )
