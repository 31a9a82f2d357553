"""Ask a served model for completions of every row's prompt, several of each if wanted.

In:  rows with the keys their prompt names, such as {"id": "9c1e", "problem": "Ava has 7 pens. ...",
     "problem_source": "gsm8k"}
Out: one row per sample, the row's keys and {"generation": "3 * 4 = 12. ...", "sample_index": 0, "seed": 1790234,
     "finish_reason": "stop", "num_prompt_tokens": 97, "num_generated_tokens": 31}, in input order
     completions.jsonl, what has been paid for, by the hash of model, prompt and sampling: a killed stage goes on from it
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from nemo_ext.manifest import Facts
from nemo_ext.prompts import Prompt, prompt_hash
from recipes.complete import COMPLETIONS, complete_all
from recipes.served import SamplingConfig, ServedStage, describe_server, server_processes
from recipes.stage import Process

if TYPE_CHECKING:
    from nemo_ext.rows import Row
    from nemo_ext.serving.requests import Request, Sampling


@dataclass(kw_only=True)
class PerSource:
    prompt: Prompt = MISSING
    num_samples: int = 1
    """Completions of each row, each with a seed of its own."""


@dataclass(kw_only=True)
class Config(ServedStage):
    input: str = MISSING
    """An earlier stage's folder, or a file."""
    by_source: dict[str, PerSource] = field(default_factory=dict)
    """problem_source -> how its rows are asked."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    seed: int = 0


def processes(cfg: Config, config_path: str) -> list[Process]:
    return server_processes(cfg, config_path)


def run(cfg: Config) -> Facts:
    from nemo_ext.manifest import model_fingerprint
    from nemo_ext.rows import RowWriter, input_files, require_rows
    from nemo_ext.serving.store import CompletionStore

    folder, files = Path(cfg.output_dir), input_files(cfg.input)
    total = sum(1 for _ in samples(cfg, files))
    with CompletionStore(folder / COMPLETIONS) as store:
        complete_all(cfg, store, lambda: (request for _, request in samples(cfg, files)), total, "completions")
        tokens = {"prompt": 0, "generated": 0}
        with RowWriter(folder) as out:
            for row, request in samples(cfg, files):
                completion = store.get(request.key)
                if completion.error is not None:
                    out.drop(row | {"error": completion.error}, "refused_by_server")
                    continue
                out.keep(
                    row
                    | {
                        "generation": completion.text,
                        "finish_reason": completion.finish_reason,
                        "num_prompt_tokens": completion.num_prompt_tokens,
                        "num_generated_tokens": completion.num_generated_tokens,
                    }
                )
                tokens["prompt"] += completion.num_prompt_tokens
                tokens["generated"] += completion.num_generated_tokens
            require_rows(out.kept, cfg.name, out.dropped)
    return Facts(
        inputs=files,
        outputs=[folder / "output.jsonl"],
        rows_in=out.total,
        rows_out=out.kept,
        dropped=out.dropped,
        models={cfg.model.name: model_fingerprint(cfg.model.hf_path)},
        prompts={each.prompt.name: prompt_hash(each.prompt) for each in cfg.by_source.values()},
        server=describe_server(cfg),
        seeds={"sampling": cfg.seed},
        tokens=tokens,
    )


def samples(cfg: Config, files: list[Path]) -> Iterator[tuple["Row", "Request"]]:
    """Every sample this shard is to make, in input order: the row with its sample_index and seed, and the request."""
    from nemo_ext.prompts import render
    from nemo_ext.rows import in_shard, read_rows
    from nemo_ext.serving.requests import Request, request_key

    for file in files:
        for row in read_rows(file):
            if not in_shard(row["id"], cfg.shard, cfg.shards):
                continue
            source = cfg.by_source.get(row["problem_source"])
            if source is None:
                raise ValueError(
                    f"stages.{cfg.name}.by_source has no {row['problem_source']!r}, the problem_source of a row; "
                    f"it has {sorted(cfg.by_source)}"
                )
            prompt = render(source.prompt, row)
            for index in range(source.num_samples):
                sampling = _sampling(cfg, source.prompt, row["id"], index)
                key = request_key(cfg.model.name, prompt, sampling, index)
                yield row | {"sample_index": index, "seed": sampling.seed}, Request(key, prompt, sampling)


def _sampling(cfg: Config, prompt: Prompt, row_id: str, index: int) -> "Sampling":
    from nemo_ext.rows import content_id
    from nemo_ext.serving.requests import Sampling

    settings = cfg.sampling
    # from the row, not from its place, so that adding rows or samples changes none of the others
    seed = int(content_id(str(cfg.seed), row_id, str(index))[:8], 16) >> 1
    return Sampling(
        settings.temperature, settings.top_p, settings.top_k, settings.max_tokens, tuple(prompt.stop), seed
    )
