"""Write the rows a tiny model is trained on from nothing.

In:  nothing but a seed
Out: output.jsonl, for `kind: teacher` {"messages": [...]} and {"input": ..., "output": ...}, which is also the layout of
     `kind: coder`, for `kind: base`
     {"text": "Question: Ava has 7 pens. ...\\nWorking: 3 * 4 = 12. 7 + 12 = 19.\\nResult: 19"}
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.prompts.prompt import Prompt, prompt_hash
from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import RowWriter
from recipes.stage import Stage

KINDS = ("teacher", "base", "coder")


@dataclass(kw_only=True)
class Config(Stage):
    kind: str = MISSING
    """One of KINDS."""
    num_rows: int = MISSING
    seed: int = 0
    solve: dict[str, Prompt] = field(default_factory=dict)
    """The teacher's and the coder's prompts, by problem source."""
    write: dict[str, Prompt] = field(default_factory=dict)
    answer: Prompt | None = None
    masked: dict[str, Prompt] = field(default_factory=dict)
    """The coder's other prompts: with a masked reference solution, by source; by subject; and to mask a solution."""
    by_subject: dict[str, Prompt] = field(default_factory=dict)
    mask: dict[str, Prompt] = field(default_factory=dict)


def check(cfg: Config) -> None:
    if cfg.kind not in KINDS:
        raise ValueError(f"stages.{cfg.name}.kind={cfg.kind!r}; it may be one of {KINDS}")


def run(cfg: Config) -> Facts:
    from nemo_ext.toy import corpus

    prompts: list[Prompt] = []
    if cfg.kind == "base":
        rows = corpus.base_rows(cfg.num_rows, cfg.seed)
    elif cfg.kind == "coder":
        by_task = (cfg.solve, cfg.masked, cfg.by_subject, cfg.mask)
        prompts = [prompt for task in by_task for prompt in task.values()]
        rows = corpus.coder_rows(corpus.CoderPrompts(*by_task), cfg.num_rows, cfg.seed)
    else:
        assert cfg.answer is not None, "a teacher's recipe names its prompts"
        prompts = [*cfg.solve.values(), *cfg.write.values(), cfg.answer]
        rows = corpus.teacher_rows(corpus.TeacherPrompts(cfg.solve, cfg.write, cfg.answer), cfg.num_rows, cfg.seed)
    folder = Path(cfg.output_dir)
    with RowWriter(folder) as out:
        for row in rows:
            out.keep(row)
    return Facts(
        outputs=[folder / "output.jsonl"],
        rows_out=out.kept,
        rows_in=out.kept,
        prompts={prompt.name: prompt_hash(prompt) for prompt in prompts},
        seeds={"corpus": cfg.seed},
    )
