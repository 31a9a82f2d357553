"""One answer for each problem from its samples: by majority, by rewards, or that of the best sample.

In:  an evaluation's folder, several samples of each problem; with rewards: what score_rewards made of it
Out: a row per problem: the chosen sample's, with its answer and {"votes": 31, "num_samples": 64, "share": 0.48};
     scores.json, whose contract says how answers were chosen
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from nemo_ext.aggregation.config import AnswerRule, Choosing
from nemo_ext.records.manifest import Facts
from recipes.stage import Stage

if TYPE_CHECKING:
    from nemo_ext.aggregation.choose import Choice
    from nemo_ext.evaluation.contract import Contract
    from nemo_ext.rows.batches import Batch
    from nemo_ext.rows.row import Row


@dataclass(kw_only=True)
class Config(Stage):
    input: str = field(default=MISSING, metadata={"path": True})
    """The folder of an evaluate, rescore or score_rewards stage."""
    choosing: Choosing = field(default_factory=Choosing)
    rule: AnswerRule = field(default_factory=AnswerRule)
    workers: int | None = field(default=None, metadata={"decides": False})
    """Processes; the result does not depend on it. None: one per core, and one where there is little to do."""


def run(cfg: Config) -> Facts:
    from nemo_ext.evaluation.evaluation_rows import refuse_apart
    from nemo_ext.evaluation.scores import SCORES, count_files, read_scores, scores_file_behind, write_scores
    from nemo_ext.rows.row import RowWriter, input_files, input_patterns, require_rows

    folder, files = Path(cfg.output_dir), input_files(cfg.input)
    scores_file = scores_file_behind(Path(cfg.input))
    if scores_file is None:
        raise ValueError(f"{cfg.input} has no scores.json behind it; input must come from an evaluation")
    behind = read_scores(scores_file.parent)
    totals: Counter[str] = Counter()
    chosen = []
    with RowWriter(folder) as out:
        for rows, counts in _chosen_rows(cfg, files):
            totals.update(counts)
            chosen += [(row["benchmark"], row["id"]) for row in rows]
            for row in rows:
                out.keep(row)
        refuse_apart(cfg.input, chosen)
        require_rows(out.kept, cfg.name, out.dropped)
    output = folder / "output.jsonl"
    contract = _contract(cfg, behind)
    written = write_scores(folder, behind["model"], contract, count_files([output], cfg.workers), behind.get("step"))
    accuracies = {name: f"{100 * each['accuracy']:.1f} %" for name, each in written["benchmarks"].items()}
    return Facts(
        inputs=[*files, scores_file],
        listed=input_patterns(cfg.input),
        outputs=[output, folder / SCORES],
        rows_in=out.total,  # problems: of several samples one row is made
        rows_out=out.kept,
        figures=accuracies | dict(totals),
    )


def _contract(cfg: Config, behind: "dict[str, object]") -> "Contract":
    from nemo_ext.evaluation.contract import Contract

    contract = Contract.from_dict(dict(behind["contract"]))  # type: ignore[call-overload]
    search = [contract.search] if contract.search != "none" else []
    grader = contract.grader if cfg.rule.modulus is None else f"integer_mod_{cfg.rule.modulus}"
    return replace(contract, search=", ".join([*search, describe(cfg.choosing, cfg.rule)]), grader=grader)


def describe(choosing: Choosing, rule: AnswerRule) -> str:
    """For the contract: the method, and what is not as by default."""
    plain = {**asdict(Choosing()), **asdict(AnswerRule())}
    settings = {**asdict(choosing), **asdict(rule)}
    changed = [
        f"{key}={value}" for key, value in settings.items() if key not in ("method", "k") and value != plain[key]
    ]
    return f"{choosing.method}@{choosing.k or 'all'}" + (f" ({', '.join(changed)})" if changed else "")


def _chosen_rows(cfg: Config, files: list[Path]) -> "Iterator[tuple[list[Row], Counter[str]]]":
    from nemo_ext.evaluation.evaluation_rows import problem_batches
    from nemo_ext.rows.passes import run_batches, worker_count

    make = partial(make_chooser, cfg.choosing, cfg.rule)
    found = run_batches(make, problem_batches(files), worker_count(cfg.workers, files))
    yield from (chosen for _, chosen in found)


def make_chooser(choosing: Choosing, rule: AnswerRule) -> "Callable[[Batch], tuple[list[Row], Counter[str]]]":
    from nemo_ext.aggregation.choose import choose
    from nemo_ext.evaluation.evaluation_rows import PROBLEM, evaluation_rows

    def select(batch: "Batch") -> "tuple[list[Row], Counter[str]]":
        chosen, counts = [], Counter[str]()
        for (benchmark, problem), group in groupby(
            evaluation_rows(batch), key=lambda row: tuple(row[key] for key in PROBLEM)
        ):
            samples = list(group)
            answers = [_answer(row, rule) for row in samples]
            try:
                choice = choose(answers, [_reward(row) for row in samples], choosing)
            except ValueError as error:
                raise ValueError(f"{benchmark}: problem {problem}: {error}") from error
            chosen.append(_row(samples, choice, rule))
            counts.update(problems=1, samples=len(samples), without_answer=int(choice.answer is None))
        return chosen, counts

    return select


def _answer(row: "Row", rule: AnswerRule) -> str | None:
    from nemo_ext.aggregation.answers import allowed, read_answer
    from nemo_ext.rows.row import written_solution

    if rule.window_chars is None:
        return allowed(row["predicted_answer"], rule)
    return read_answer(written_solution(row) or "", rule)


def _reward(row: "Row") -> float | None:
    reward = row.get("reward")
    if reward is None or (isinstance(reward, int | float) and not isinstance(reward, bool)):
        return reward
    raise ValueError(f"the reward of sample {row.get('sample')} is not a number: {reward!r}")


def _row(samples: "list[Row]", choice: "Choice", rule: AnswerRule) -> "Row":
    row = samples[choice.sample or 0]
    answer = rule.default if choice.answer is None else choice.answer
    correct = _is_correct(row, answer, rule)
    told = {key: value for key, value in row.items() if key != "verdicts"}
    votes = {"votes": choice.votes, "num_samples": choice.total, "share": round(choice.share, 6)}
    return told | {"sample": 0, "predicted_answer": answer, "is_correct": correct} | votes


def _is_correct(row: "Row", answer: str | None, rule: AnswerRule) -> bool:
    """The sample's own verdict where its answer is the one chosen, as it stands."""
    from nemo_ext.grading.equal import equal
    from nemo_ext.grading.graders import integer_verdict

    if rule.modulus is not None:
        return bool(integer_verdict(answer, row["expected_answer"], rule.modulus))
    if answer == row["predicted_answer"]:
        return row["is_correct"] is True
    return equal(answer, row["expected_answer"])
