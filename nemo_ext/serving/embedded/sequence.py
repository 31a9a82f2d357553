"""One choice of one request, from the queue to its last token."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from nemo_ext.serving.embedded.text import TextStream


@dataclass(frozen=True)
class SamplingParameters:
    max_tokens: int
    """0 with `echo` only."""
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    stop: tuple[str, ...]
    ignore_eos: bool
    num_logprobs: int | None
    """None: none asked for; 0: the chosen token's only."""
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end it, besides the model's own."""
    echo: bool = False
    """The reply begins with the prompt and, with num_logprobs, the log-probability of each of its tokens."""


@dataclass(frozen=True)
class TokenLogprob:
    token: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass(frozen=True)
class Delta:
    """What a streaming client gets next."""

    index: int
    text: str
    logprobs: list[TokenLogprob]
    finish_reason: str | None
    stop_reason: str | int | None


@dataclass(eq=False)
class Sequence:
    """`done` holds None when the choice is complete, or the engine's exception."""

    index: int
    prompt: tuple[int, ...]
    parameters: SamplingParameters
    key: int
    """The key of its random numbers, see sampling.stream_key."""
    text_stream: TextStream | None
    """None when the text is only needed whole."""
    listener: Callable[[Delta], None] | None
    done: asyncio.Future[None]
    text: str = ""
    finish_reason: str | None = None
    """"stop" (end of sequence or a stop string) or "length"; None while it runs."""
    stop_reason: str | int | None = None
    """The stop string, or the one of stop_token_ids, that ended it, as in vLLM; None at the end of sequence and at the
    length."""
    num_generated: int = 0
    """Sampled tokens, the end-of-sequence one included, as in vLLM's usage."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    """Log-probabilities of the prompt's tokens but the first, when they were asked for."""
    num_sent_logprobs: int = 0

    @property
    def scores_prompt(self) -> bool:
        return self.parameters.echo and self.parameters.num_logprobs is not None

    @property
    def watched(self) -> bool:
        """Whether something has to look at every token as it comes."""
        return self.text_stream is not None or self.parameters.num_logprobs is not None

    def send(self, *, final: bool) -> None:
        """Give the listener the text and log-probabilities it has not seen."""
        if self.listener is None:
            return
        assert self.text_stream is not None, "a streamed choice has a text stream"
        piece = self.text_stream.take(final=final)
        if not (piece or final):
            return
        fresh = self.logprobs[self.num_sent_logprobs :]
        self.num_sent_logprobs = len(self.logprobs)
        self.listener(Delta(self.index, piece, fresh, self.finish_reason, self.stop_reason))
