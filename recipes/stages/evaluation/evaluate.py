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
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from nemo_ext.aggregation.config import AnswerRule
from nemo_ext.prompts.prompt import Prompt, check_prompt, prompt_hash
from nemo_ext.records.manifest import Facts
from recipes.asking.complete import COMPLETIONS, AskedModel, asked_model, complete_all
from recipes.asking.sampling import OTHERS
from recipes.asking.served import SamplingConfig, describe_server, server_processes, stop_token_ids
from recipes.asking.tool_use import ToolStage, sandbox_processes, tool_loop
from recipes.stage import Process
from recipes.work import Asking

if TYPE_CHECKING:
    from nemo_ext.evaluation.contract import Contract
    from nemo_ext.rows.row import Row, RowWriter
    from nemo_ext.serving.client.client import Loop
    from nemo_ext.serving.client.requests import Request, Sampling
    from nemo_ext.serving.completions.completion_store import CompletionStore

GRADED_AT_ONCE = 512  # rows


@dataclass(kw_only=True)
class Config(ToolStage):
    benchmarks: str = field(default=MISSING, metadata={"path": True})
    """A prepare_benchmarks stage's folder."""
    prompt: Prompt = MISSING
    """Must be the one the model was fine-tuned with."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Greedy by default."""
    num_samples: int = 1
    """Answers to each problem; more than one need a temperature."""
    seed: int = 0
    """Of the samples' own seeds: each follows from this, the problem and the number of the sample."""
    samples_per_request: int = 1
    """Up to so many samples of a problem in one request, where the server honours `n`; they then share a seed."""
    extractor: str = "boxed"
    """boxed, default (a box, else "The answer is", else ####), the_answer_is, hash or letter: where the answer is."""
    graders: list[str] = field(default_factory=lambda: ["symbolic"])
    """The first decides is_correct; names as in nemo_ext/evaluation/verdicts.py. The rescore stage asks others later."""
    early_finish: bool = False
    """Ask for no more samples of a problem whose majority they could not change. The majority is the one of all samples;
    pass@1 and pass@k are not, as the samples that are left were not chosen at random."""
    rule: AnswerRule = field(default_factory=AnswerRule)
    """Which answers count for early_finish: as choose_answers, which takes the vote, has it."""
    step: int | None = None
    """Of the training, for the plot of accuracy against steps. None: what export_hf's manifest says of the model."""


def check(cfg: Config) -> None:
    from nemo_ext.evaluation.verdicts import GraderSet

    check_prompt(cfg.prompt)
    for key in ("num_samples", "samples_per_request"):
        if getattr(cfg, key) < 1:
            raise ValueError(f"stages.{cfg.name}.{key}={getattr(cfg, key)}: it must be at least 1")
    if cfg.num_samples > 1 and cfg.sampling.temperature == 0:
        raise ValueError(
            f"stages.{cfg.name}: num_samples={cfg.num_samples} at temperature 0 are the same answer so many times. Set "
            "sampling.temperature (0.7 is customary), or num_samples to 1"
        )
    if cfg.samples_per_request > 1 and (cfg.use_tools or cfg.early_finish):
        raise ValueError(
            f"stages.{cfg.name}.samples_per_request={cfg.samples_per_request}: with use_tools or early_finish each sample "
            "is asked for by itself; set it to 1"
        )
    try:
        GraderSet(cfg.graders, cfg.extractor).close()
    except ValueError as error:
        raise ValueError(f"stages.{cfg.name}: {error}") from error


def work(cfg: Config) -> Asking:
    samples, max_tokens = {OTHERS: cfg.num_samples}, cfg.sampling.max_tokens
    return Asking(input=cfg.benchmarks, samples=samples, max_tokens=max_tokens, rows_are="problems")


def processes(cfg: Config, config_path: str) -> list[Process]:
    return [*sandbox_processes(cfg, config_path), *server_processes(cfg, config_path)]


def run(cfg: Config) -> Facts:
    from nemo_ext.evaluation.scores import SCORES, count_files, write_scores
    from nemo_ext.rows.row import RowWriter, input_files, input_patterns

    folder, files = Path(cfg.output_dir), input_files(cfg.benchmarks)
    contract = _contract(cfg, files)  # before a token is paid for: it may lack something
    model = asked_model(cfg, lambda: next(_distinct(cfg, files, ""), None), cfg.samples_per_request)
    contract = replace(contract, model_hash=model.hash)
    tokens = {"prompt": 0, "generated": 0}
    with RowWriter(folder) as out:
        for row in _graded(cfg, _answered(cfg, files, model, out)):
            out.keep(row)
            for kind in tokens:
                tokens[kind] += row[f"num_{kind}_tokens"]
    problems = count_files([folder / "output.jsonl"])
    scores = write_scores(folder, model.name, contract, problems, cfg.step if model.served else _step(cfg))
    return Facts(
        inputs=files,
        listed=input_patterns(cfg.benchmarks),
        outputs=[folder / "output.jsonl", folder / SCORES],
        rows_in=out.total,
        rows_out=out.kept,
        dropped=out.dropped,
        prompts={cfg.prompt.name: prompt_hash(cfg.prompt)},
        server=describe_server(cfg),
        seeds={"sampling": cfg.seed},
        tokens=tokens,
        figures={name: f"{100 * score['accuracy']:.1f} %" for name, score in scores["benchmarks"].items()},
        **model.facts,
    )


def _answered(cfg: Config, files: list[Path], model: AskedModel, out: "RowWriter") -> Iterator["Row"]:
    from nemo_ext.aggregation.early_finish import NOT_NEEDED
    from nemo_ext.serving.completions.completion_store import CompletionStore

    total = cfg.num_samples * sum(1 for _ in _problems(cfg, files))
    with CompletionStore(Path(cfg.output_dir) / COMPLETIONS) as store:
        complete_all(
            cfg, store, lambda: _distinct(cfg, files, model.key), total, "answers",
            served=model.served, samples_per_request=cfg.samples_per_request, loop=_loop(cfg, files, model.key, store),
        )  # fmt: skip
        for row, request in _requests(cfg, files, model.key):
            if cfg.early_finish and request.key not in store:
                out.drop(row | {"seed": request.sampling.seed}, NOT_NEEDED)
                continue
            completion = store.get(request.key)
            if completion.error is not None:
                raise ValueError(f"the server refused {row['benchmark']} {row['id']}: {completion.error}")
            seed = request.sampling.seed if completion.seed is None else completion.seed
            tools = {} if completion.tools is None else {"tools": completion.tools}
            yield row | {"seed": seed} | completion.answer | tools


def _loop(cfg: Config, files: list[Path], model_key: str, store: "CompletionStore") -> "Loop | None":
    """What makes one sample of a request; None: the server alone."""
    from nemo_ext.aggregation.answers import read_answer
    from nemo_ext.aggregation.early_finish import EarlyFinish

    inner = tool_loop(cfg) if cfg.use_tools else None
    if not cfg.early_finish:
        return inner
    problem_of: dict[str, str] = {}
    known: dict[str, list[str | None]] = {}
    for row, request in _requests(cfg, files, model_key):
        if request.key in problem_of:  # a problem in two benchmarks is asked once
            continue
        problem_of[request.key] = row["problem"]
        done = store.get(request.key) if request.key in store else None
        if done is not None and done.error is None:
            known.setdefault(row["problem"], []).append(read_answer(done.text, cfg.rule))
    return EarlyFinish(inner, problem_of, lambda text: read_answer(text, cfg.rule), known)


def _problems(cfg: Config, files: list[Path]) -> Iterator["Row"]:
    from nemo_ext.rows.row import read_rows

    for file in files:
        for row in read_rows(file):
            if row.get("expected_answer") is None:
                raise ValueError(
                    f"{row.get('benchmark')} {row.get('id')} has no expected_answer, so nothing can be scored; "
                    "prepare the benchmarks with require_answers=true"
                )
            yield row


def _requests(
    cfg: Config, files: list[Path], model_key: str, samples: range | None = None
) -> Iterator[tuple["Row", "Request"]]:
    """Every sample of every problem, with its number; or those of `samples`."""
    from nemo_ext.models.chat_template import ChatTemplate
    from nemo_ext.prompts.prompt import render
    from nemo_ext.serving.client.requests import Request, request_key

    template = ChatTemplate.of(cfg.model) if cfg.use_tools else None  # a trace goes on from text
    ends = stop_token_ids(cfg, cfg.prompt)
    for row in _problems(cfg, files):
        prompt = render(cfg.prompt, row)
        rendered = template is not None and not isinstance(prompt, str)
        if template is not None and not isinstance(prompt, str):
            prompt = template.render(prompt)
        for sample in samples or range(cfg.num_samples):
            sampling = _sampling(cfg, str(row["problem"]), sample, ends)
            key = request_key(model_key, prompt, sampling, sample, cfg.tools_variant)
            yield row | {"sample": sample}, Request(key, prompt, sampling, rendered)


def _distinct(cfg: Config, files: list[Path], model_key: str) -> Iterator["Request"]:
    """Those of a problem that two benchmarks have are the same ones.

    One after the other a problem's samples share what the server keeps of their prompt. With early_finish all problems'
    first samples come first, so that a decided problem's last ones are not begun.
    """
    seen: set[str] = set()
    rounds = [range(n, n + 1) for n in range(cfg.num_samples)] if cfg.early_finish else [range(cfg.num_samples)]
    for samples in rounds:
        for _, request in _requests(cfg, files, model_key, samples):
            if request.key not in seen:
                seen.add(request.key)
                yield request


def _sampling(cfg: Config, problem: str, sample: int, ends: tuple[int, ...]) -> "Sampling":
    from nemo_ext.rows.row import content_id
    from nemo_ext.serving.client.requests import Sampling

    settings = cfg.sampling
    # from the problem, so that neither other benchmarks nor more samples change any, and a problem in two is asked once
    drawn = int(content_id(str(cfg.seed), problem, str(sample))[:8], 16) >> 1
    seed = drawn if settings.temperature > 0 else 0
    return Sampling(
        settings.temperature, settings.top_p, settings.top_k, settings.max_tokens, tuple(cfg.prompt.stop), seed, ends
    )


def _graded(cfg: Config, rows: Iterator["Row"]) -> Iterator["Row"]:
    from nemo_ext.evaluation.verdicts import GraderSet

    with GraderSet(cfg.graders, cfg.extractor) as graders:
        while some := list(islice(rows, GRADED_AT_ONCE)):
            for row, columns in zip(some, graders.columns(some), strict=True):
                yield row | columns


def _step(cfg: Config) -> int | None:
    """`checkpoint_3` in an export_hf stage's folder is the third of the checkpoints that its manifest names."""
    from nemo_ext.evaluation.model_names import checkpoint_number
    from nemo_ext.megatron.checkpoint_folders import step_of
    from nemo_ext.records import manifest

    model = Path(cfg.model.hf_path)
    number = checkpoint_number(model.name)
    if cfg.step is not None or number is None or not (model.parent / manifest.MANIFEST).is_file():
        return cfg.step
    exported = [Path(each["path"]).parent for each in manifest.read(model.parent)["inputs"]]
    return step_of(exported[number - 1]) if 0 < number <= len(exported) else None


def _contract(cfg: Config, files: list[Path]) -> "Contract":
    """Everything that moves the scores besides the model, which is not known yet."""
    from nemo_ext.evaluation.contract import Contract
    from nemo_ext.evaluation.scores import benchmark_digest
    from nemo_ext.grading.equal import grader_version
    from nemo_ext.models.chat_template import ChatTemplate

    server = describe_server(cfg)
    settings = cfg.sampling
    return Contract(
        benchmark_hash=benchmark_digest(_problems(cfg, files)),
        prompt_hash=prompt_hash(cfg.prompt),
        chat_template_hash=ChatTemplate.of(cfg.model).hash,
        stop=tuple(cfg.prompt.stop),
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        seeds=(cfg.seed,),
        extractor=cfg.extractor,
        grader_version=grader_version(),
        server=f"{server['kind']} {server['version']}",
        model_hash=None,
        grader=cfg.graders[0],
        num_samples=cfg.num_samples,
        few_shot=len(cfg.prompt.few_shot),
        search=_search(cfg),
    )


def _search(cfg: Config) -> str:
    """What was done besides drawing samples."""
    tools = [f"tools {cfg.tools.format} {cfg.tools_variant[:12]}"] if cfg.use_tools else []
    return ", ".join([*tools, *(["early finish"] if cfg.early_finish else [])]) or "none"
