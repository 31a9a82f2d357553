"""Samples that cannot change a majority are not made, and the majority is the one of all samples."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_ext.aggregation.answers import read_answer
from nemo_ext.aggregation.config import AnswerRule
from nemo_ext.aggregation.early_finish import NOT_NEEDED, EarlyFinish, is_decided
from nemo_ext.aggregation.vote import vote
from nemo_ext.sandbox.tool_loop import Send
from nemo_ext.serving.client.requests import Completion, Request, Sampling

SAMPLING = Sampling(0.8, 1.0, 0, 10, (), 3)
ANSWERS = st.lists(st.sampled_from(["1", "1.0", "2", "3", None]), min_size=1, max_size=12)


@given(ANSWERS, st.data())
def test_what_is_decided_stays_so(answers: list[str | None], data: st.DataObject) -> None:
    seen = data.draw(st.integers(0, len(answers)))
    if is_decided(answers[:seen], len(answers) - seen):
        first, whole = vote(answers[:seen], "equivalent"), vote(answers, "equivalent")
        assert first.spellings <= whole.spellings


@pytest.mark.parametrize(
    ("answers", "outstanding", "decided"),
    [(["5", "5"], 1, True), (["5", "5"], 2, False), (["5"], 0, True), ([None, None], 0, False), ([], 0, False),
     (["5", "5", "6"], 1, False), (["5", "5", "6"], 0, True), (["5", None, None], 0, True), (["5", "5.0", "6"], 0, True)],
)  # fmt: skip
def test_decided(answers: list[str | None], outstanding: int, decided: bool) -> None:
    assert is_decided(answers, outstanding) is decided


def _requests(problems: int, width: int) -> list[tuple[str, Request]]:
    return [(f"p{p}", Request(f"{p}-{i}", f"problem {p}", SAMPLING)) for p in range(problems) for i in range(width)]


def _completion(key: str, answer: str | None) -> Completion:
    return Completion(key, f"\\boxed{{{answer}}}" if answer else "?", "stop", 1, 1, 0.0, None, 1)


class _Model:
    """Answers by key; holds each sample as long as `seconds` says."""

    def __init__(self, answers: dict[str, str | None], seconds: dict[str, float]) -> None:
        self.answers, self.seconds = answers, seconds
        self.begun: list[str] = []
        self.cancelled: list[str] = []

    async def __call__(self, request: Request) -> Completion:
        self.begun.append(request.key)
        try:
            await asyncio.sleep(self.seconds.get(request.key, 0))
        except asyncio.CancelledError:
            self.cancelled.append(request.key)
            raise
        return _completion(request.key, self.answers[request.key])


def _run(
    model: _Model, asked: list[tuple[str, Request]], at_once: int, known: dict[str, list[str | None]] | None = None
):
    async def main() -> tuple[EarlyFinish, list[Completion]]:
        gate = asyncio.Semaphore(at_once)
        rule = AnswerRule()
        finish = EarlyFinish(None, {r.key: p for p, r in asked}, lambda text: read_answer(text, rule), known or {})

        async def one(request: Request) -> Completion:
            async with gate:
                return await finish(request, model)

        async with finish:
            return finish, list(await asyncio.gather(*(one(request) for _, request in asked)))

    return asyncio.run(main())  # fmt: skip


def test_a_decided_problem_begins_no_more_samples() -> None:
    asked = _requests(1, 8)
    model = _Model({request.key: "5" for _, request in asked}, {})
    _, done = _run(model, asked, at_once=1)
    assert model.begun == [f"0-{i}" for i in range(5)], "5 of 8 are a majority"
    assert [each.trace and each.trace["ended"] for each in done] == [None] * 5 + [NOT_NEEDED] * 3


def test_samples_under_way_are_ended() -> None:
    asked = _requests(1, 3)
    model = _Model({request.key: "5" for _, request in asked}, {"0-2": 60.0})
    _, done = _run(model, asked, at_once=3)
    assert model.cancelled == ["0-2"] and done[2].trace == {"executions": 0, "errors": {}, "ended": NOT_NEEDED}


def test_samples_of_an_earlier_run_count() -> None:
    asked = _requests(2, 3)
    model = _Model({request.key: "5" for _, request in asked}, {})
    _run(model, asked, at_once=1, known={"p0": ["5", "5"]})
    assert model.begun == ["1-0", "1-1"]


@pytest.mark.parametrize("seed", range(8))
def test_the_majority_is_that_of_all_samples(seed: int) -> None:
    """Whatever comes first."""
    draw = random.Random(seed)
    asked = _requests(6, 9)
    answers = {request.key: draw.choice(["1", "1", "2", None]) for _, request in asked}
    model = _Model(answers, {request.key: draw.random() / 100 for _, request in asked})
    _, done = _run(model, asked, at_once=draw.choice([1, 4, 54]))
    for number in range(6):
        ours = [read_answer(each.text, AnswerRule()) for each in done[9 * number : 9 * number + 9]]
        whole = [answers[f"{number}-{i}"] for i in range(9)]
        if any(each.trace for each in done[9 * number : 9 * number + 9]):
            assert vote(ours, "equivalent").answer == vote(whole, "equivalent").answer


def test_what_the_inner_loop_makes_is_counted() -> None:
    class Inner:
        entered = 0

        async def __aenter__(self) -> "Inner":
            self.entered += 1
            return self

        async def __aexit__(self, *error: object) -> None:
            self.entered -= 1

        async def __call__(self, request: Request, send: Send) -> Completion:
            return _completion(request.key, "5")

    async def main() -> None:
        inner = Inner()
        finish = EarlyFinish(inner, {"0-0": "p0"}, lambda text: read_answer(text, AnswerRule()), {})
        async with finish:
            assert inner.entered == 1
            await finish(Request("0-0", "x", SAMPLING), _Model({}, {}))
        assert inner.entered == 0 and finish.answers["p0"] == ["5"]

    asyncio.run(main())
