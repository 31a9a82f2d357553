"""Ask a reward model how good each sample is.

In:  rows with problem and generation (or generated_solution), such as an evaluation's
Out: the row and {"reward": -3.6}; of those that already have one, as they are; null where the model would not say
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from omegaconf import MISSING

from nemo_ext.prompts.prompt import Prompt
from nemo_ext.prompts.replies import reward
from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import Row, RowOutcome, written_solution
from nemo_ext.serving.client.requests import Completion
from recipes.asking.ask import ask_rows
from recipes.asking.judges.likelihood import Likelihood
from recipes.asking.question import NOTHING_SAMPLED, Question
from recipes.asking.served import ServedStage, server_processes
from recipes.asking.trial import Trial
from recipes.stage import ReadsRows, row_files

PROTOCOLS = ("chat", "pooling", "likelihood")
TRIED = 8
"""Solutions that are sent before the others: a server that scores none of them is not a reward model."""


@dataclass(kw_only=True)
class Config(ServedStage, ReadsRows):
    input: str = field(default=MISSING, metadata={"path": True})
    """An evaluation's folder, or rows of your own."""
    protocol: str = "chat"
    """chat: /v1/chat/completions with the problem and the solution as the two turns, answered by "name:score" pairs (NVIDIA
    NIM). pooling: the same turns to vLLM's /pooling (`vllm serve <model> --runner pooling`). likelihood: no reward model:
    the mean log-probability that any model gives the solution's tokens, from /v1/completions with `echo`."""
    prompt: Prompt | None = None
    """What the solution answers, for likelihood: as the evaluation asked."""
    weights: dict[str, float] = field(default_factory=dict)
    """Attribute -> weight, for models that score several; those of a pooled vector are "0", "1", ..."""


def check(cfg: Config) -> None:
    if cfg.protocol not in PROTOCOLS:
        raise ValueError(f"stages.{cfg.name}.protocol={cfg.protocol!r}; it may be {' or '.join(PROTOCOLS)}")
    if cfg.protocol == "likelihood" and cfg.prompt is None:
        raise ValueError(f"stages.{cfg.name}: protocol=likelihood needs prompt, which its problems are asked with")
    if cfg.protocol != "likelihood" and cfg.server.get("kind") == "embedded":
        raise ValueError(
            f"stages.{cfg.name}: server=embedded has no reward model. Name one that runs (server=external "
            f"server.urls=[...]), or take stages.{cfg.name}.protocol=likelihood"
        )


processes = server_processes


def run(cfg: Config) -> Facts:
    rewards = Rewards(cfg)
    trial = Trial(TRIED, lambda row, text: rewards.worth(row, text) is not None, "a score", partial(advice, cfg))
    facts = ask_rows(cfg, row_files(cfg, cfg.input), rewards, "solutions", trial=trial)
    if (unread := facts.figures.get("no_score")) and not facts.figures.get("scored"):
        raise ValueError(
            f"none of {unread:,} replies is a score. {advice(cfg, next(iter(facts.models)))} and run again, with redo=true "
            f"stages.{cfg.name}.reuse_completions=false"
        )
    return facts


def advice(cfg: Config, model: str) -> str:
    others = ", ".join(each for each in PROTOCOLS if each != cfg.protocol)
    return (
        f"Is {model} a reward model, and protocol={cfg.protocol} what its server speaks? Fix server.urls or "
        f"stages.{cfg.name}.protocol (others: {others})"
    )


class Rewards:
    """Asks for each solution's reward, and reads it."""

    def __init__(self, cfg: Config) -> None:
        self.cfg = cfg
        self._likelihood = Likelihood(cfg, cfg.prompt) if cfg.protocol == "likelihood" and cfg.prompt else None

    def questions(self, row: Row) -> Iterator[Question]:
        solution = written_solution(row)
        if row.get("reward") is not None or not solution:
            return
        if self._likelihood is not None:
            yield self._likelihood.question(row, solution)
            return
        turns = [{"role": "user", "content": row["problem"]}, {"role": "assistant", "content": solution}]
        returns: Literal["text", "pooling"] = "pooling" if self.cfg.protocol == "pooling" else "text"
        yield Question(turns, NOTHING_SAMPLED, variant=self.cfg.protocol, returns=returns)

    def outcome(self, row: Row, replies: Sequence[Completion], counts: Counter[str]) -> Iterator[RowOutcome]:
        score = row.get("reward")
        if replies and not replies[0].retryable:
            score = self.worth(row, replies[0].text) if replies[0].error is None else None
            counts["scored" if score is not None else "no_score"] += 1
        else:
            counts["no_reply" if replies else "not_asked"] += 1
        yield row | {"reward": score}, None

    def worth(self, row: Row, reply: str) -> float | None:
        if self._likelihood is not None:
            return self._likelihood.worth(row, reply)
        return reward.parse(reply, weights=self.cfg.weights)
