"""Let a model answer every benchmark problem, once or several times, with or without Python at hand, and score it.

In:  a prepare_benchmarks stage's problems; a model to serve
Out: one row per problem and sample, a problem's samples together: the row and {"sample": 0, "seed": 0,
     "generation": "...", "predicted_answer": "19", "is_correct": true, "verdicts": {"symbolic": true},
     "finish_reason": "stop", "num_prompt_tokens": 57, "num_generated_tokens": 30};
     scores.json  {"model": "average", "contract": {...}, "benchmarks": {"gsm8k": {"accuracy": 0.81, "low": ...}}}
     completions.jsonl, what has been paid for: a killed stage goes on from it
Dropped: not_needed, samples that early_finish did without
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from nemo_ext.aggregation.config import AnswerRule
from nemo_ext.evaluation.model_names import step_of_export
from nemo_ext.evaluation.problems import scored_problems
from nemo_ext.prompts.prompt import Prompt, check_prompt, prompt_hash
from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import Row, RowWriter, input_files, input_patterns
from recipes.asking.ask import asked
from recipes.asking.question import Question
from recipes.asking.replies import Replies
from recipes.asking.samples import SampledStage, Sampler, check_samples, seed_of
from recipes.asking.score_contract import contract_of
from recipes.asking.served import describe_server
from recipes.asking.strategies import OTHERS
from recipes.asking.tool_use import tool_loop, tool_stage_processes
from recipes.work import Asking

if TYPE_CHECKING:
    from nemo_ext.serving.client.client import Loop


@dataclass(kw_only=True)
class Config(SampledStage):
    benchmarks: str = field(default=MISSING, metadata={"path": True})
    """A prepare_benchmarks stage's folder."""
    prompt: Prompt = MISSING
    """Must be the one the model was fine-tuned with."""
    num_samples: int = 1
    """Answers to each problem; more than one need a temperature."""
    extractor: str = "boxed"
    """boxed, default (a box, else "The answer is", else ####), the_answer_is, hash or letter: where the answer is."""
    graders: list[str] = field(default_factory=lambda: ["symbolic"])
    """The first decides is_correct; names as in nemo_ext/evaluation/verdicts.py. The rescore stage asks others later."""
    early_finish: bool = False
    """Ask for no more samples of a problem whose majority they could not change. The majority is the one of all samples;
    pass@1 and pass@k are not, as the samples that are left were not chosen at random."""
    rule: AnswerRule = field(default_factory=AnswerRule)
    """The answers that count for early_finish: as choose_answers, which takes the vote, has it."""
    step: int | None = None
    """The training step, for the plot of accuracy against steps. None: what export_hf's manifest says of the model."""


def check(cfg: Config) -> None:
    from nemo_ext.evaluation.verdicts import check_graders

    check_prompt(cfg.prompt)
    one_by_one = "use_tools or early_finish" if cfg.use_tools or cfg.early_finish else ""
    check_samples(cfg, cfg.num_samples, f"stages.{cfg.name}", one_by_one)
    check_graders(f"stages.{cfg.name}", cfg.graders, cfg.extractor)


def work(cfg: Config) -> Asking:
    samples, max_tokens = {OTHERS: cfg.num_samples}, cfg.sampling.max_tokens
    return Asking(input=cfg.benchmarks, samples=samples, max_tokens=max_tokens, rows_are="problems")


processes = tool_stage_processes


def run(cfg: Config) -> Facts:
    from nemo_ext.evaluation.scores import SCORES, count_files, write_scores
    from nemo_ext.evaluation.verdicts import graded

    folder, files = Path(cfg.output_dir), input_files(cfg.benchmarks)
    contract = contract_of(  # before a token is paid for: it may lack something
        cfg, cfg.prompt, scored_problems(files), cfg.early_finish,
        extractor=cfg.extractor, grader=cfg.graders[0], num_samples=cfg.num_samples,
    )  # fmt: skip
    tokens = {"prompt": 0, "generated": 0}
    with asked(
        cfg, lambda: _in_order(cfg, files), "answers", total=cfg.num_samples * sum(1 for _ in scored_problems(files)),
        samples_per_request=cfg.samples_per_request, loop=partial(_loop, cfg, files),
    ) as replies, RowWriter(folder) as out:  # fmt: skip
        for row in graded(_answered(cfg, files, replies, out), cfg.graders, cfg.extractor):
            out.keep(row)
            for kind in tokens:
                tokens[kind] += row[f"num_{kind}_tokens"] or 0  # of a server that does not count
    model = replies.model
    step = cfg.step if model.served or cfg.step is not None else step_of_export(Path(cfg.model.hf_path))
    problems = count_files([folder / "output.jsonl"])
    scores = write_scores(folder, model.name, replace(contract, model_hash=model.hash), problems, step)
    return Facts(
        inputs=files,
        listed=input_patterns(cfg.benchmarks),
        outputs=[folder / "output.jsonl", folder / SCORES],
        prompts={cfg.prompt.name: prompt_hash(cfg.prompt)},
        server=describe_server(cfg),
        seeds={"sampling": cfg.seed},
        tokens=tokens,
        figures={name: f"{100 * score['accuracy']:.1f} %" for name, score in scores["benchmarks"].items()},
        **out.counts,
        **model.facts,
    )


def _answered(cfg: Config, files: list[Path], replies: Replies, out: RowWriter) -> Iterator[Row]:
    from nemo_ext.aggregation.early_finish import NOT_NEEDED

    for row, question in _samples(cfg, files):
        if cfg.early_finish and question not in replies:
            out.drop(row | {"seed": question.sampling.seed}, NOT_NEEDED)
            continue
        reply = replies.to(question)
        if reply.error is not None:
            raise ValueError(f"the server refused {row['benchmark']} {row['id']}: {reply.error}")
        seed = question.sampling.seed if reply.seed is None else reply.seed
        yield row | {"seed": seed} | reply.answer | ({} if reply.trace is None else {"trace": reply.trace})


def _loop(cfg: Config, files: list[Path], replies: Replies) -> "Loop | None":
    """What makes one sample of a request; None: the server alone."""
    from nemo_ext.aggregation.answers import read_answer
    from nemo_ext.aggregation.early_finish import EarlyFinish

    inner = tool_loop(cfg) if cfg.use_tools else None
    if not cfg.early_finish:
        return inner
    samples = ((replies.key(asks), row["problem"], replies.text(asks)) for row, asks in _samples(cfg, files))
    return EarlyFinish.of_samples(inner, samples, lambda text: read_answer(text, cfg.rule))


def _samples(cfg: Config, files: list[Path], numbers: range | None = None) -> Iterator[tuple[Row, Question]]:
    """Every sample of every problem, with its number; or those of `numbers`. Those of a problem that two benchmarks have are
    the same ones: a seed is the problem's."""
    sampler, drawn = Sampler(cfg, cfg.prompt), cfg.sampling.temperature > 0
    for row in scored_problems(files):
        chosen = numbers or range(cfg.num_samples)
        seeds = {number: seed_of(cfg.seed, str(row["problem"]), number) if drawn else 0 for number in chosen}
        for question in sampler.questions(row, seeds):
            yield row | {"sample": question.index}, question


def _in_order(cfg: Config, files: list[Path]) -> Iterator[Question]:
    """One after the other a problem's samples share what the server keeps of their prompt. With early_finish all problems'
    first samples come first, so that a decided problem's last ones are not begun."""
    numbers = range(cfg.num_samples)
    rounds = [numbers[n : n + 1] for n in numbers] if cfg.early_finish else [numbers]
    return (question for some in rounds for _, question in _samples(cfg, files, some))
