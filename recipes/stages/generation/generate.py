"""Ask a served model for completions of every row's prompt, several of each if wanted, with or without Python at hand.

In:  rows with the keys their prompt names, such as {"id": "9c1e", "problem": "Ava has 7 pens. ...",
     "problem_source": "gsm8k"}; in a file of your own `id` and `problem_source` may be missing, and the problem may be
     called question or query, or what `columns` says
Out: one row per sample, the row's keys and {"generation": "3 * 4 = 12. ...", "sample_index": 0, "seed": 1790234,
     "finish_reason": "stop", "num_prompt_tokens": 97, "num_generated_tokens": 31}, in input order; samples that shared
     a request also have "choice", their place in its reply, and tool-integrated ones "tools"
     completions.jsonl, what has been paid for, by the hash of model, prompt and sampling: a killed stage goes on from it
Dropped: missing_<key>, special_token (the row's text has one of the model's, which would make another prompt of it; not
     known of server=external with any_model), prompt_too_long, refused_by_server, given_up (after client.max_attempts),
     malformed_json
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ext.prompts.prompt import prompt_hash
from nemo_ext.records.manifest import Facts
from recipes.asking.complete import COMPLETIONS, Outcome, asked_model, complete_all, takes_any_model
from recipes.asking.sampling import Samples, SamplingStage, check_prompts
from recipes.asking.served import describe_server, server_processes
from recipes.asking.tool_use import sandbox_processes, tool_loop
from recipes.stage import Process
from recipes.work import Asking

if TYPE_CHECKING:
    from nemo_ext.sandbox.tool_loop import ToolLoop
    from nemo_ext.serving.client.requests import Completion, Request
    from nemo_ext.serving.completions.completion_store import CompletionStore
    from recipes.asking.sampling import ChatText


@dataclass(kw_only=True)
class Config(SamplingStage):
    samples_per_request: int = 1
    """Up to so many samples of a row in one request, where the server honours `n`: the prompt is sent once. They then
    share a seed, and their token counts are split by the length of the texts. With tools always 1."""


def check(cfg: Config) -> None:
    check_prompts(cfg)
    if cfg.samples_per_request < 1:
        raise ValueError(f"stages.{cfg.name}.samples_per_request={cfg.samples_per_request}: it must be at least 1")


def work(cfg: Config) -> Asking:
    samples = {source: asked.num_samples for source, asked in cfg.by_source.items()}
    return Asking(input=cfg.input, samples=samples, max_tokens=cfg.sampling.max_tokens)


def processes(cfg: Config, config_path: str) -> list[Process]:
    return [*sandbox_processes(cfg, config_path), *server_processes(cfg, config_path)]


def run(cfg: Config) -> Facts:
    from nemo_ext.rows.row import RowWriter, require_rows
    from nemo_ext.rows.sources import comes_meanwhile, data_files, data_patterns
    from nemo_ext.serving.completions.completion_store import CompletionStore
    from nemo_ext.serving.completions.spending import Spending

    folder = Path(cfg.output_dir)
    files = data_files(cfg.input, cfg.split, folder)
    samples, loop = _with_tools(cfg, files) if cfg.use_tools else (_samples(cfg, files), None)
    total = samples.count()
    model = asked_model(cfg, lambda: next(samples.requests(), None), cfg.samples_per_request)
    samples.model = model.key
    with CompletionStore(folder / COMPLETIONS) as store:
        outcome = complete_all(
            cfg, store, samples.requests, total, "completions",
            served=model.served, samples_per_request=1 if loop else cfg.samples_per_request, may_drop=True, loop=loop,
        )  # fmt: skip
        spending, error = Spending(), ""
        with RowWriter(folder) as out:
            for row, request in samples.rows(dropped=out):
                completion = _result(store, outcome, request)
                if completion.error is None:
                    spending.add(completion)
                    out.keep(row | _answer(completion))
                else:
                    error = completion.error
                    out.drop(row | {"error": error}, _reason(completion))
            require_rows(out.kept, cfg.name, out.dropped, error)
    return Facts(
        inputs=files,
        listed=data_patterns(cfg.input, cfg.split),
        inputs_came_meanwhile=comes_meanwhile(cfg.input),
        outputs=[folder / "output.jsonl"],
        rows_in=out.total,
        rows_out=out.kept,
        dropped=out.dropped,
        prompts={each.prompt.name: prompt_hash(each.prompt) for each in cfg.by_source.values()},
        server=describe_server(cfg) | outcome.notes,
        seeds={"sampling": cfg.seed},
        tokens=spending.tokens,
        figures=spending.figures(cfg.client) | outcome.figures,
        **model.facts,
    )


def _with_tools(cfg: Config, files: list[Path]) -> tuple[Samples, "ToolLoop"]:
    """Samples whose prompts are text, which a trace can go on from, and what makes traces of them."""
    from nemo_ext.models.chat_template import ChatTemplate

    chats = any(each.prompt.template == "chat" for each in cfg.by_source.values())
    template = ChatTemplate.of(cfg.model).render if chats else None
    return _samples(cfg, files, template, cfg.tools_variant), tool_loop(cfg)


def _samples(cfg: Config, files: list[Path], chat_text: "ChatText | None" = None, variant: str = "") -> Samples:
    from nemo_ext.samples import special_tokens

    # which ones another's server has is not known
    special = None if takes_any_model(cfg) else special_tokens.finder(special_tokens.of_checkpoint(cfg.model.hf_path))
    return Samples(cfg, files, chat_text, variant, special)


def _answer(completion: "Completion") -> dict[str, Any]:
    """What a completion adds to its row."""
    keys = completion.answer | {"seed": completion.seed}
    if completion.choice:
        keys["choice"] = completion.choice
    if completion.tools is not None:
        keys["tools"] = completion.tools
    return keys


def _result(store: "CompletionStore", outcome: Outcome, request: "Request") -> "Completion":
    from nemo_ext.serving.client.requests import Completion

    if request.key in outcome.given_up:
        return Completion(request.key, "", None, 0, 0, 0.0, outcome.given_up[request.key], 0, retryable=True)
    return store.get(request.key)


def _reason(completion: "Completion") -> str:
    from nemo_ext.serving.completions.context_window import TOO_LONG

    if completion.retryable:
        return "given_up"
    return TOO_LONG if completion.error_kind == TOO_LONG else "refused_by_server"
