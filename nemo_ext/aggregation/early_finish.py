"""Stop sampling a problem whose majority the samples still to come cannot change."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Self

from nemo_ext.aggregation.choose import Same
from nemo_ext.aggregation.vote import vote
from nemo_ext.sandbox.tool_loop import Send
from nemo_ext.serving.client.client import Loop
from nemo_ext.serving.client.requests import Completion, Request

NOT_NEEDED = "not_needed"


def is_decided(answers: list[str | None], outstanding: int, same: Same | None = None) -> bool:
    """Whether the leading answer wins whatever the `outstanding` samples say.

    Samples without an answer count for nobody. Other answers count together against the leader, as spellings that
    nobody has compared yet may turn out to be one answer.
    """
    won = vote(answers, "equivalent", same)
    others = sum(answer is not None for answer in answers) - won.votes
    return won.votes > others + outstanding


class EarlyFinish:
    """Wraps what makes a sample of a request. A sample of a problem that is decided is not begun: its completion is empty,
    with tools {"ended": "not_needed"} and no attempts, and is not worth keeping. Those under way are ended the same way.

    Args:
        inner: makes one sample; None: the request is sent as it is.
        problem_of: request key -> problem; width: problem -> samples it gets.
        read: a sample's text -> its answer.
        known: answers of samples made by an earlier run, per problem.
    """

    def __init__(
        self,
        inner: Loop | None,
        problem_of: dict[str, str],
        read: Callable[[str], str | None],
        known: dict[str, list[str | None]],
        same: Same | None = None,
    ) -> None:
        self.inner = inner
        self.problem_of = problem_of
        self.read = read
        self.same = same
        self.answers: dict[str, list[str | None]] = defaultdict(list, {key: list(each) for key, each in known.items()})
        self.width: dict[str, int] = defaultdict(int)
        for problem in problem_of.values():
            self.width[problem] += 1
        self.decided: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    @classmethod
    def of_samples(
        cls, inner: Loop | None, samples: Iterable[tuple[str, str, str | None]], read: Callable[[str], str | None]
    ) -> Self:
        """`samples`: request key, problem, and the text that an earlier run has. Equal keys are one sample."""
        problem_of: dict[str, str] = {}
        known: dict[str, list[str | None]] = {}
        for key, problem, text in samples:
            if key not in problem_of and text is not None:
                known.setdefault(problem, []).append(read(text))
            problem_of[key] = problem
        return cls(inner, problem_of, read, known)

    async def __aenter__(self) -> Self:
        for problem in list(self.answers):
            self._look(problem)
        if self.inner is not None:
            await self.inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.inner is not None:
            await self.inner.__aexit__(kind, error, where)

    async def __call__(self, request: Request, send: Send) -> Completion:
        problem = self.problem_of[request.key]
        decided = self.decided[problem]
        if decided.is_set():
            return self._spare(request)
        made = asyncio.ensure_future(self.inner(request, send) if self.inner is not None else send(request))
        over = asyncio.ensure_future(decided.wait())
        try:
            await asyncio.wait((made, over), return_when=asyncio.FIRST_COMPLETED)
            if not made.done():
                return self._spare(request)
            completion = await made
        finally:
            over.cancel()
            if not made.done():
                made.cancel()
                await asyncio.wait((made,))
        if completion.error is None:
            self.answers[problem].append(self.read(completion.text))
            self._look(problem)
        return completion

    def _look(self, problem: str) -> None:
        answers = self.answers[problem]
        if is_decided(answers, self.width[problem] - len(answers), self.same):
            self.decided[problem].set()

    def _spare(self, request: Request) -> Completion:
        empty = Completion(request.key, "", "stop", 0, 0, 0.0, None, 0)
        return replace(empty, seed=request.sampling.seed, trace={"executions": 0, "errors": {}, "ended": NOT_NEEDED})
