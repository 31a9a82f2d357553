"""Ask the first questions by themselves: a server that answers none of them usably is the wrong one, and costs little."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from recipes.asking.complete import earlier_completions
from recipes.asking.connect import connect
from recipes.asking.question import Question
from recipes.asking.replies import Replies
from recipes.asking.served import ServedStage

if TYPE_CHECKING:
    from nemo_ext.rows.row import Row
    from nemo_ext.serving.client.probe import Abilities
    from nemo_ext.serving.client.requests import Completion

WRONG_SERVER = frozenset({"bad_reply", "404", "405"})
"""Failures that no other question would fare better with; an overloaded server or a text too long says nothing."""


@dataclass(frozen=True)
class Trial:
    count: int
    usable: "Callable[[Row, str], bool]"
    """Whether a reply about a row is of use."""
    wanted: str
    """What such a reply is, for messages: a score."""
    advice: Callable[[str], str]
    """Name of the model -> what to look at where there is none."""

    def run(
        self, cfg: ServedStage, questions: "Iterable[tuple[Row, Question]]", replies: Replies
    ) -> "Abilities | None":
        """In two attempts each; not what an earlier run has a reply of. Returns the servers; None: nothing was asked.

        Raises:
            ValueError: no reply is usable. They are not stored, so that a rerun asks again.
        """
        from nemo_ext.serving.client.client import complete
        from nemo_ext.serving.client.failures import Refused

        model = replies.model
        first = {replies.key(question): (row, question) for row, question in islice(questions, self.count)}
        _take_earlier(cfg, replies, first)
        tried = {key: asked for key, asked in first.items() if asked[1] not in replies}
        if not tried:
            return model.served
        requests = [question.request(model.key) for _, question in tried.values()]
        served = model.served or connect(cfg, requests[0])
        said: list[Completion] = []
        try:
            complete(requests, served.endpoints, replace(cfg.client, max_attempts=2), said.extend)
        except Refused as error:
            if error.kind not in WRONG_SERVER:
                raise
            raise self._refusal(replies, str(error)) from error
        given = [each for each in said if each.error is None]
        try:
            usable = any(self.usable(tried[each.key][0], each.text) for each in given)
        except ValueError:  # usable, and the stage's settings do not fit it
            replies.keep(given)
            raise
        if not usable and all(each.error is None or each.error_kind in WRONG_SERVER for each in said):
            example = str(said[0].error or said[0].text)[:300]
            where = f"the first {len(said)} replies of {served.endpoints[0].url}"
            raise self._refusal(replies, f"none of {where} is {self.wanted}; one is {example!r}")
        replies.keep(given)
        return served

    def _refusal(self, replies: Replies, what: str) -> ValueError:
        return ValueError(
            f"{what}. {self.advice(replies.model.name)} and run again, with redo=true where a setting of the stage changed"
        )


def _take_earlier(cfg: ServedStage, replies: Replies, keys: Collection[str]) -> None:
    """Store what runs that were set aside have been told."""
    earlier = earlier_completions(cfg)
    replies.keep([reply for key in keys if (reply := earlier.find(key)) is not None])
    earlier.close()
