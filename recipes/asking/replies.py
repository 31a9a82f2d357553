"""Replies of the model that a stage asks, by question."""

from typing import TYPE_CHECKING, Any

from recipes.asking.asked_model import AskedModel
from recipes.asking.complete import Outcome
from recipes.asking.question import Question
from recipes.asking.served import ServedStage, describe_server

if TYPE_CHECKING:
    from nemo_ext.serving.client.requests import Completion
    from nemo_ext.serving.completions.completion_store import CompletionStore


class Replies:
    """What the asked model has said."""

    def __init__(self, cfg: ServedStage, model: AskedModel, store: "CompletionStore") -> None:
        self._cfg, self._store = cfg, store
        self.model = model
        self.outcome = Outcome()

    def __contains__(self, question: Question) -> bool:
        """Whether it has an answer, or was refused for good."""
        return self.key(question) in self._store

    def key(self, question: Question) -> str:
        return question.request(self.model.key).key

    def to(self, question: Question) -> "Completion":
        """The reply, or an error that says why there is none.

        Raises:
            ValueError: it was not asked.
        """
        from nemo_ext.serving.client.requests import Completion

        key = self.key(question)
        if key in self.outcome.given_up:
            return Completion(key, "", None, 0, 0, 0.0, self.outcome.given_up[key], 0, retryable=True)
        return self._store.get(key)

    def text(self, question: Question) -> str | None:
        """What an earlier run has of it; None: nothing, or a refusal."""
        key = self.key(question)
        reply = self._store.get(key) if key in self._store else None
        return None if reply is None or reply.error is not None else reply.text

    def keep(self, completions: "list[Completion]") -> None:
        self._store.append(completions)

    @property
    def facts(self) -> dict[str, Any]:
        """The fields of Facts that say who answered.

        Raises:
            ValueError: the model's files are no longer what they were when the stage began.
        """
        return {"server": describe_server(self._cfg) | self.outcome.notes, **self.model.facts}


def answer_columns(reply: "Completion") -> dict[str, Any]:
    """What a sample adds to its row."""
    choice = {"choice": reply.choice} if reply.choice else {}
    trace = {"trace": reply.trace} if reply.trace is not None else {}
    return reply.answer | {"seed": reply.seed} | choice | trace


def drop_reason(reply: "Completion") -> str:
    """Why a row whose question has no answer is dropped."""
    from nemo_ext.serving.completions.context_window import TOO_LONG

    if reply.retryable:
        return "given_up"
    return TOO_LONG if reply.error_kind == TOO_LONG else "refused_by_server"
