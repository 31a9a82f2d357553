"""Everything that moves an evaluation's scores besides the model, which is not known before its server is asked."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from nemo_ext.prompts.prompt import Prompt, prompt_hash
from recipes.asking.samples import SampledStage
from recipes.asking.served import describe_server

if TYPE_CHECKING:
    from nemo_ext.evaluation.contract import Contract
    from nemo_ext.rows.row import Row


def contract_of(
    cfg: SampledStage, prompt: Prompt, problems: "Iterable[Row]", early_finish: bool, **own: Any
) -> "Contract":
    """`own`: further fields of Contract."""
    from nemo_ext.evaluation.contract import Contract
    from nemo_ext.evaluation.scores import benchmark_digest
    from nemo_ext.grading.equal import grader_version
    from nemo_ext.models.chat_template import ChatTemplate

    server, drawn = describe_server(cfg), cfg.sampling
    return Contract(
        benchmark_hash=benchmark_digest(problems),
        prompt_hash=prompt_hash(prompt),
        chat_template_hash=ChatTemplate.of(cfg.model).hash,
        stop=tuple(prompt.stop),
        max_tokens=drawn.max_tokens,
        temperature=drawn.temperature,
        top_p=drawn.top_p,
        top_k=drawn.top_k,
        seeds=(cfg.seed,),
        grader_version=grader_version(),
        server=f"{server['kind']} {server['version']}",
        model_hash=None,
        few_shot=len(prompt.few_shot),
        search=_search(cfg, early_finish),
        **own,
    )


def _search(cfg: SampledStage, early_finish: bool) -> str:
    """What was done besides drawing samples."""
    tools = [f"tools {cfg.tools.format} {cfg.tools_variant[:12]}"] if cfg.use_tools else []
    return ", ".join([*tools, *(["early finish"] if early_finish else [])]) or "none"
