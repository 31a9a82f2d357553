"""One answer from the samples of a problem."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from nemo_ext.aggregation.config import Choosing
from nemo_ext.aggregation.vote import vote

Same = Callable[[str, str], object]


@dataclass(frozen=True)
class Choice:
    """`sample`: the index of the first sample that gives `answer`, None without one."""

    answer: str | None
    sample: int | None
    votes: int
    """Samples that give it, in any spelling that counts as the same."""
    total: int
    share: float
    """The answer's share of the votes, or of the rewards' weight."""


def choose(
    answers: Sequence[str | None], rewards: Sequence[float | None], choosing: Choosing, same: Same | None = None
) -> Choice:
    """The answer of `choosing.method` over the first k samples.

    Args:
        rewards: one a sample; None: none was given. A sample without one has no weight and is never the best.
        same: whether two answers are equal, for `equivalent`; a Grader's verdict, say.

    Raises:
        ValueError: fewer than k samples; a method that needs rewards without any; a negative raw weight.
    """
    k = choosing.k or len(answers)
    if len(answers) < k:
        raise ValueError(f"{len(answers)} samples, and choosing.k={k}")
    answers, rewards = answers[:k], rewards[:k]
    if choosing.needs_rewards and not any(reward is not None for reward in rewards):
        raise ValueError(f"choosing.method={choosing.method} needs rewards, and no sample has one")
    if choosing.method == "best_of_n":
        return _best(answers, rewards)
    weights = [_weight(reward, choosing.reward_weight) for reward in rewards] if choosing.needs_rewards else None
    mode: Literal["exact", "equivalent"] = "equivalent" if choosing.equivalent else "exact"
    won = vote(answers, mode, same, weights)
    first = next((i for i, answer in enumerate(answers) if answer is not None and answer in won.spellings), None)
    return Choice(won.answer, first, won.votes, won.total, won.share)


def _best(answers: Sequence[str | None], rewards: Sequence[float | None]) -> Choice:
    """The answer with the best reward, the first one where several are equal."""
    rated = [(reward, -i) for i, (answer, reward) in enumerate(zip(answers, rewards, strict=True))
             if answer is not None and reward is not None]  # fmt: skip
    if not rated:
        return Choice(None, None, 0, len(answers), 0.0)
    best = -max(rated)[1]
    votes = sum(answer == answers[best] for answer in answers)
    return Choice(answers[best], best, votes, len(answers), votes / len(answers))


def _weight(reward: float | None, kind: str) -> float:
    if reward is None:
        return 0.0
    if kind == "raw" and reward < 0:
        raise ValueError(
            f"a reward of {reward:g} cannot be a weight: set choosing.reward_weight to sigmoid or exp, which keep the order"
        )
    if kind == "exp":
        return math.exp(min(reward, 700.0))  # beyond, a float has no room
    return reward if kind == "raw" else 1 / (1 + math.exp(-max(-700.0, reward)))
