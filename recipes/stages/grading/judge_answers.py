"""Let a model decide the answers that no rule could compare, in both orders.

In:  rows of a grade stage: problem, predicted_answer, expected_answer, is_correct, verdict
Out: the row; of those that were asked about also {"judge_replies": ["True", "True."]}, and where both orders agree
     {"verdict": "equal", "is_correct": true, "grade_method": "judge"}. Where they do not, the row stays as it was.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from omegaconf import MISSING

from nemo_ext.prompts.prompt import Prompt, prompt_hash, render
from nemo_ext.prompts.replies import verdict
from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import Row, RowOutcome
from nemo_ext.serving.client.requests import Completion
from recipes.asking.ask import ask_rows
from recipes.asking.question import Question, greedy
from recipes.asking.served import ServedStage, server_processes
from recipes.stage import ReadsRows, row_files

WHICH = {"undecided": {"undecided"}, "different": {"different"}, "both": {"undecided", "different"}}
ORDERS = ("predicted_answer", "expected_answer"), ("expected_answer", "predicted_answer")


@dataclass(kw_only=True)
class Config(ServedStage, ReadsRows):
    input: str = field(default=MISSING, metadata={"path": True})
    """A grade stage's folder, or rows of your own that have its columns."""
    which: str = "undecided"
    """Rows to ask about: undecided, different or both. Those without an answer are never asked about."""
    prompt: Prompt = MISSING
    """A prompt with {problem}, {expected_answer} and {predicted_answer}; the reply is True or False."""
    max_tokens: int = 1024
    """Length of a reply; room for a model that reasons before its verdict."""


def check(cfg: Config) -> None:
    if cfg.which not in WHICH:
        raise ValueError(f"stages.{cfg.name}.which={cfg.which!r}; it may be one of {', '.join(WHICH)}")
    if cfg.shards != 1:
        raise ValueError(
            f"stages.{cfg.name}.shards={cfg.shards}: this stage is not split; set server.replicas instead"
        )


processes = server_processes


def run(cfg: Config) -> Facts:
    prompts = {cfg.prompt.name: prompt_hash(cfg.prompt)}
    return ask_rows(cfg, row_files(cfg, cfg.input), BothOrders(cfg), "judgements", prompts=prompts)


class BothOrders:
    """Asks whether the first answer equals the second, and the second the first."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self.sampling = greedy(cfg, cfg.prompt, cfg.max_tokens)

    def questions(self, row: Row) -> Iterator[Question]:
        if is_asked(self.cfg, row):
            for order in ORDERS:
                answers = dict(zip(ORDERS[0], (str(row[key]) for key in order), strict=True))
                yield Question(render(self.cfg.prompt, row | answers), self.sampling)

    def outcome(self, row: Row, replies: Sequence[Completion], counts: Counter[str]) -> Iterator[RowOutcome]:
        if not replies:
            yield row, None
            return
        texts = [reply.text if reply.error is None else None for reply in replies]
        decided = verdict.agreed(texts)
        outcome = {True: "equal", False: "different", None: "open"}[decided]
        counts.update(("asked", outcome))
        judged = {} if decided is None else {"is_correct": decided, "verdict": outcome, "grade_method": "judge"}
        yield row | {"judge_replies": texts} | judged, None


def is_asked(cfg: Config, row: Row) -> bool:
    from nemo_ext.grading.answers import answer_of

    if any(answer_of(row.get(key)) is None for key in ORDERS[0]):
        return False
    graded = row.get("verdict")
    if graded is None and isinstance(row.get("is_correct"), bool):  # elsewhere
        graded = "equal" if row["is_correct"] else "different"
    return graded in WHICH[cfg.which]
