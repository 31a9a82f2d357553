"""Write the rows a tiny model is trained on from nothing.

In:  nothing but a seed
Out: output.jsonl, for `kind: teacher` {"messages": [...]} and {"input": ..., "output": ...}, for `kind: base`
     {"text": "Question: Ava has 7 pens. ...\\nWorking: 3 * 4 = 12. 7 + 12 = 19.\\nResult: 19"}
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.prompts.prompt import Prompt, prompt_hash
from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import RowWriter
from recipes.stage import Stage


@dataclass(kw_only=True)
class Config(Stage):
    kind: str = MISSING
    """`teacher` or `base`."""
    num_rows: int = MISSING
    seed: int = 0
    solve: dict[str, Prompt] = field(default_factory=dict)
    """The teacher's prompts, by problem source."""
    write: dict[str, Prompt] = field(default_factory=dict)
    answer: Prompt | None = None


def check(cfg: Config) -> None:
    if cfg.kind not in {"teacher", "base"}:
        raise ValueError(f"stages.{cfg.name}.kind={cfg.kind!r}; it must be teacher or base")


def run(cfg: Config) -> Facts:
    from nemo_ext.toy import corpus

    prompts: list[Prompt] = []
    if cfg.kind == "base":
        rows = corpus.base_rows(cfg.num_rows, cfg.seed)
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
