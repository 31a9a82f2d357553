"""Ask a model whether a problem is a benchmark's in other words, in both orders, and read what it says.

A problem that an exact match or an n-gram has settled is not asked about.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nemo_ext.prompts.prompt import Prompt, render
from nemo_ext.rows.row import Row
from recipes.asking.ask import asked
from recipes.asking.asked_model import AskedModel
from recipes.asking.question import Question, greedy
from recipes.asking.replies import Replies
from recipes.asking.served import ServedStage

if TYPE_CHECKING:
    from nemo_ext.curation.contamination.candidates import Found, Hit
    from nemo_ext.curation.contamination.parts import Parts

MAX_REPLY_TOKENS = 16
Judged = tuple[int, Row, list["Hit"], int]
"""Number of a problem, the problem, its hits, and how many pairs the judge has left undecided."""


class PairJudge:
    """What becomes of every problem, as one goes through it; then `model` is the one that was asked.

    Args:
        prompt: with {problem} and {other_problem}.
        tests: the benchmarks' problems, in the order that Hit.test counts in.
    """

    model: AskedModel

    def __init__(self, cfg: ServedStage, prompt: Prompt, parts: "Parts", tests: list[Row]) -> None:
        self.cfg, self.prompt, self.parts, self.tests = cfg, prompt, parts, tests
        self.sampling = greedy(cfg, prompt, MAX_REPLY_TOKENS)

    def __iter__(self) -> Iterator[Judged]:
        total = 2 * sum(len(_candidates(found)) for _, _, found in self.parts.read())
        with asked(self.cfg, self._questions, "judgements", total=total) as replies:
            self.model = replies.model
            for number, problem, found in self.parts.read():
                hits, undecided = self._judged(found, problem["problem"], replies)
                yield number, problem, hits, undecided

    def _questions(self) -> Iterator[Question]:
        for _, problem, found in self.parts.read():
            for index in _candidates(found):
                yield from self._orders(problem["problem"], index).values()

    def _orders(self, problem: str, index: int) -> dict[str, Question]:
        other = self.tests[index]["problem"]
        orders = {"problem_first": (problem, other), "benchmark_first": (other, problem)}
        return {
            name: Question(render(self.prompt, {"problem": first, "other_problem": second}), self.sampling)
            for name, (first, second) in orders.items()
        }

    def _judged(self, found: "Found", problem: str, replies: Replies) -> tuple[list["Hit"], int]:
        """(hits, pairs that the replies do not decide)."""
        from nemo_ext.curation.contamination.candidates import LLM, Hit
        from nemo_ext.curation.contamination.same_problem import either_order

        hits, undecided, scores = list(found.hits), 0, dict(found.near)
        for index in _candidates(found):
            texts = {order: replies.to(each).text for order, each in self._orders(problem, index).items()}
            same = either_order(texts.values())
            undecided += same is None
            if same:
                hits.append(Hit(index, LLM, scores[index], replies=texts))
        return hits, undecided


def _candidates(found: "Found") -> list[int]:
    return [] if found.hits else [index for index, _ in found.near]
