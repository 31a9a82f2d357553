"""Ask a model about rows: a stage says what to ask of a row and what becomes of it, all else is here.

    class Judge:
        def questions(self, row):                 # none: the row is not asked about
            yield Question(f"Is {row['answer']} right?", greedy(...))

        def outcome(self, row, replies, counts):  # a row that leaves and None, or one to drop and the reason
            yield row | {"judged": replies[0].text}, None

    ask_rows(cfg, row_files(cfg, cfg.input), Judge(), "judgements")

A stage whose rows are no files of rows (pairs, benchmark problems) asks one level below: `with asked(...) as replies`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import Row, RowOutcome, require_rows
from nemo_ext.serving.client.requests import Completion, Request
from recipes.asking.asked_model import asked_model
from recipes.asking.complete import COMPLETIONS, complete_all
from recipes.asking.question import Question
from recipes.asking.replies import Replies
from recipes.asking.served import ServedStage

if TYPE_CHECKING:
    from nemo_ext.rows.passes import RowFunction
    from nemo_ext.rows.row_input import RowFiles
    from nemo_ext.serving.client.client import Loop
    from nemo_ext.serving.client.probe import Abilities
    from recipes.asking.trial import Trial


class Ask(Protocol):
    """What a stage says about a row."""

    def questions(self, row: Row) -> Iterable[Question]:
        """None: the row is not asked about."""

    def outcome(self, row: Row, replies: Sequence[Completion], counts: Counter[str]) -> Iterable[RowOutcome]:
        """The rows that leave, each with None, and those to drop with the reason; one at least.

        Args:
            replies: to each question; with an `error` where the server refused, `retryable` where attempts ran out.
            counts: takes figures to add up.
        """


@contextmanager
def asked(
    cfg: ServedStage,
    questions: Callable[[], Iterable[Question]],
    unit: str,
    *,
    total: int | None = None,
    samples_per_request: int = 1,
    may_drop: bool = False,
    loop: "Callable[[Replies], Loop | None] | None" = None,
    trial: "Callable[[Replies], Abilities | None] | None" = None,
    steps: Sequence[Callable[[], Iterable[Question]]] = (),
    begin: Callable[[Replies], None] = lambda replies: None,
) -> Iterator[Replies]:
    """Ask every question that an earlier run has no answer of, and open what was said for reading.

    Args:
        questions: begins anew each time; in the order they are best sent in.
        total: how many there are; None: they are counted, each distinct one once.
        may_drop: up to client.max_given_up of them may end without a reply.
        loop: what makes one sample of a request, given the replies of earlier runs; None: the server alone.
        trial: asks some by themselves before the others, and returns the servers it asked.
        steps: questions that are asked before, all of one before those of the next, each once and by the server alone.
        begin: is given the replies before anything is asked: those of earlier steps decide what is asked next.

    Raises:
        ValueError: what asked_model, complete_all and the trial raise.
    """
    from nemo_ext.serving.completions.completion_store import CompletionStore

    first = steps[0] if steps else questions
    model = asked_model(cfg, lambda: next(_requests("", first()), None), samples_per_request)
    with CompletionStore(Path(cfg.output_dir) / COMPLETIONS) as store:
        replies = Replies(cfg, model, store)
        begin(replies)
        served = trial(replies) if trial else model.served
        made_by = loop(replies) if loop else None
        for each in (*steps, questions):
            by_itself = made_by is not None or each is not questions
            replies.outcome = complete_all(
                cfg, store, partial(_asked_of, replies, each), _count(replies, each()) if total is None else total, unit,
                served=served, samples_per_request=1 if by_itself else samples_per_request, may_drop=may_drop,
                loop=made_by if each is questions else None,
            ).after(replies.outcome)  # fmt: skip
        yield replies


def _asked_of(replies: Replies, questions: Callable[[], Iterable[Question]]) -> Iterator[Request]:
    return _requests(replies.model.key, questions())


def _requests(model_key: str, questions: Iterable[Question]) -> Iterator[Request]:
    return (question.request(model_key) for question in questions)


def _count(replies: Replies, questions: Iterable[Question]) -> int:
    from nemo_ext.serving.completions.completion_store import packed

    return len({packed(replies.key(question)) for question in questions})


def ask_rows(
    cfg: ServedStage, files: "RowFiles", ask: Ask, unit: str, *, trial: "Trial | None" = None, **more: Any
) -> Facts:
    """Ask about every row of the files and write what becomes of it, in order, as `map_rows` does.

    Args:
        more: further fields of Facts.

    Raises:
        ValueError: what `asked` and `map_rows` raise, or no row is left.
    """
    from nemo_ext.rows.passes import map_rows

    def questions() -> Iterator[Question]:
        return (question for _, question in _asked_about(files, ask))

    def try_first(replies: Replies) -> "Abilities | None":
        return trial.run(cfg, _asked_about(files, ask), replies) if trial else replies.model.served

    with asked(cfg, questions, unit, may_drop=True, trial=try_first) as replies:
        rests_on = " ".join(filter(None, [replies.model.key, replies.model.content, replies.outcome.given_up_hash]))
        mapped = map_rows(Path(cfg.output_dir), files, lambda: _outcomes(ask, replies), workers=1, rests_on=rests_on)
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    return mapped.facts(files, figures=mapped.figures | replies.outcome.figures, **replies.facts, **more)


def _asked_about(files: "RowFiles", ask: Ask) -> Iterator[tuple[Row, Question]]:
    from nemo_ext.rows.passes import scan_rows

    for rows in scan_rows(files, lambda: list, workers=1):
        for row in rows:
            for question in ask.questions(row):
                yield row, question


def _outcomes(ask: Ask, replies: Replies) -> "RowFunction":
    from nemo_ext.rows.passes import EachRow

    def outcomes(row: Row, counts: Counter[str]) -> Iterable[RowOutcome]:
        return ask.outcome(row, [replies.to(question) for question in ask.questions(row)], counts)

    return EachRow(outcomes)
