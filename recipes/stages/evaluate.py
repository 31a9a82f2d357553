"""Let a model answer every benchmark problem and score it.

In:  a prepare_benchmarks stage's problems; a model to serve
Out: the row and {"generation": "...", "predicted_answer": "19", "is_correct": true, "finish_reason": "stop"};
     scores.json  {"model": "average", "contract": {...}, "benchmarks": {"gsm8k": {"accuracy": 0.81, "low": ...}}}
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.manifest import Facts
from nemo_ext.prompts import Prompt, prompt_hash
from recipes.complete import COMPLETIONS, complete_all
from recipes.served import SamplingConfig, ServedStage, describe_server, server_processes
from recipes.stage import Process

if TYPE_CHECKING:
    from nemo_ext.rows import Row
    from nemo_ext.serving.requests import Request

SCORES = "scores.json"
EXTRACTOR = "boxed"


@dataclass(kw_only=True)
class Config(ServedStage):
    benchmarks: str = MISSING
    """A prepare_benchmarks stage's folder."""
    prompt: Prompt = MISSING
    """Must be the one the model was fine-tuned with."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Greedy by default."""


def processes(cfg: Config, config_path: str) -> list[Process]:
    return server_processes(cfg, config_path)


def run(cfg: Config) -> Facts:
    from nemo_ext.evaluation.metrics import metrics
    from nemo_ext.files import write_json_atomic
    from nemo_ext.manifest import model_fingerprint
    from nemo_ext.rows import RowWriter, input_files

    folder, files = Path(cfg.output_dir), input_files(cfg.benchmarks)
    answered = list(_graded(_answered(cfg, files)))
    scores = metrics(answered)
    with RowWriter(folder) as out:
        for row in answered:
            out.keep(row)
    contract = _contract(cfg, answered)
    write_json_atomic(folder / SCORES, {"model": cfg.model.name, "contract": contract, "benchmarks": scores})
    return Facts(
        inputs=files,
        outputs=[folder / "output.jsonl", folder / SCORES],
        rows_in=out.total,
        rows_out=out.kept,
        models={cfg.model.name: model_fingerprint(cfg.model.hf_path)},
        prompts={cfg.prompt.name: prompt_hash(cfg.prompt)},
        server=describe_server(cfg),
        tokens={
            "prompt": sum(row["num_prompt_tokens"] for row in answered),
            "generated": sum(row["num_generated_tokens"] for row in answered),
        },
        figures={name: f"{100 * score['accuracy']:.1f} %" for name, score in scores.items()},
    )


def _answered(cfg: Config, files: list[Path]) -> Iterator["Row"]:
    from nemo_ext.serving.store import CompletionStore

    asked = list(_requests(cfg, files))
    with CompletionStore(Path(cfg.output_dir) / COMPLETIONS) as store:
        complete_all(cfg, store, lambda: (request for _, request in asked), len(asked), "answers")
        for row, request in asked:
            completion = store.get(request.key)
            if completion.error is not None:
                raise ValueError(f"{cfg.name}: the server refused {row['benchmark']} {row['id']}: {completion.error}")
            yield row | completion.answer


def _requests(cfg: Config, files: list[Path]) -> Iterator[tuple["Row", "Request"]]:
    from nemo_ext.prompts import render
    from nemo_ext.rows import read_rows
    from nemo_ext.serving.requests import Request, Sampling, request_key

    settings = cfg.sampling
    sampling = Sampling(
        settings.temperature, settings.top_p, settings.top_k, settings.max_tokens, tuple(cfg.prompt.stop), 0
    )
    for file in files:
        for row in read_rows(file):
            prompt = render(cfg.prompt, row)
            yield row, Request(request_key(cfg.model.name, prompt, sampling, 0), prompt, sampling)


def _graded(rows: Iterator["Row"]) -> Iterator["Row"]:
    from nemo_ext.grading.extract import extract_answer
    from nemo_ext.grading.grader import Grader

    with Grader() as grader:
        for row in rows:
            predicted = extract_answer(row["generation"], EXTRACTOR)
            verdict = grader.verdict(predicted, row["expected_answer"])
            yield row | {"predicted_answer": predicted, "is_correct": bool(verdict)}


def _contract(cfg: Config, rows: list["Row"]) -> dict[str, Any]:
    """Everything that moves the scores besides the model."""
    from nemo_ext.chat import ChatTokenizer
    from nemo_ext.evaluation.contract import Contract
    from nemo_ext.files import sha256_json
    from nemo_ext.grading.equal import grader_version
    from nemo_ext.manifest import model_fingerprint

    server = describe_server(cfg)
    settings = cfg.sampling
    return Contract(
        benchmark_hash=sha256_json([[row["benchmark"], row["problem"], row["expected_answer"]] for row in rows]),
        prompt_hash=prompt_hash(cfg.prompt),
        chat_template_hash=ChatTokenizer(cfg.model).template_hash,
        stop=tuple(cfg.prompt.stop),
        max_tokens=settings.max_tokens,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        seeds=(0,),
        extractor=EXTRACTOR,
        grader_version=grader_version(),
        server=f"{server['kind']} {server['version']}",
        model_hash=model_fingerprint(cfg.model.hf_path),
    ).to_dict()
