"""Ask a row one question after another: each reply is a key of the prompts after it.

    chain:
      draft: {prompt: "${prompt:my_draft}"}                # its reply is {draft} in the prompts below
      critique: {prompt: "${prompt:my_critique}", parser: after_marker, params: {marker: "Critique:"}, max_tokens: 256}
    by_source:
      "*": {prompt: "${prompt:my_better}", num_samples: 4}     # with {draft} and {critique}; writes `generation`

Each step is asked once of a row, and of all rows before the next step begins.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.prompts.prompt import EXAMPLES, Prompt, check_prompt, required_keys
from nemo_ext.prompts.reply_parsers import parser
from nemo_ext.rows.row import OF_A_SOLUTION
from nemo_ext.samples import special_tokens
from recipes.asking.question import Question
from recipes.asking.replies import Replies, drop_reason
from recipes.asking.samples import SampledStage, Sampler, sample_name, seed_of

if TYPE_CHECKING:
    from nemo_ext.rows.row import Row
    from nemo_ext.serving.client.requests import Completion

_NAME = re.compile(r"[a-z_]+")  # what a placeholder may be called
_TAKEN = {"id", "problem", EXAMPLES, *OF_A_SOLUTION}


@dataclass(kw_only=True)
class Step:
    prompt: Prompt = MISSING
    parser: str = "text"
    """A file of nemo_ext/prompts/replies that reads one value, such as after_marker; text: the whole reply."""
    params: dict[str, Any] = field(default_factory=dict)
    """The parser's parameters."""
    max_tokens: int | None = None
    """Of the reply; None: the stage's sampling.max_tokens."""
    temperature: float | None = None
    """None: the stage's sampling.temperature."""


def check_chain(place: str, chain: Mapping[str, Step]) -> None:
    """Raises ValueError for a step that cannot work, before anything is submitted."""
    for number, (name, step) in enumerate(chain.items()):
        where = f"{place}.chain.{name}"
        if not _NAME.fullmatch(name) or name in _TAKEN:
            raise ValueError(
                f"{where}: its reply is put into prompts by this name, so it must be lower-case letters and _, and none "
                f"of {', '.join(sorted(_TAKEN))}"
            )
        check_prompt(step.prompt)
        if later := required_keys(step.prompt) & set(list(chain)[number:]):
            raise ValueError(
                f"{where}: prompt {step.prompt.name} needs {{{sorted(later)[0]}}}, which is not there yet: a step may name "
                "the steps above it"
            )
        _check_parser(where, step)
        too_few = step.max_tokens is not None and step.max_tokens < 1
        if too_few or (step.temperature or 0) < 0:
            raise ValueError(
                f"{where}: max_tokens={step.max_tokens} must be at least 1, temperature={step.temperature} at least 0"
            )


def _check_parser(where: str, step: Step) -> None:
    try:
        parse = parser(step.parser, step.params)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if "list" in str(inspect.signature(parse).return_annotation):
        raise ValueError(
            f"{where}.parser={step.parser} reads a list, and a step's reply is one value. A row for each item: a "
            "parse_replies stage behind this one"
        )


@dataclass(frozen=True)
class _Link:
    """A step as it is asked and read."""

    name: str
    sampler: Sampler
    parse: Callable[[str], Any]
    parser: str
    keys: frozenset[str]

    def question(self, row: "Row", seed: int) -> Question:
        seeds = {0: seed_of(seed, f"{sample_name(row)}\x1f{self.name}", 0)}
        return next(self.sampler.questions(row, seeds))

    def read(self, reply: "Completion") -> tuple[Any, str | None]:
        """(its value, why there is none)."""
        if reply.error is not None:
            return None, drop_reason(reply)
        if reply.finish_reason == "length":
            return None, "truncated"
        value = self.parse(reply.text)
        return value, f"no_{self.parser}" if value is None else None


class Chain:
    """The steps of a stage; without any, rows pass as they are."""

    def __init__(self, cfg: SampledStage, steps: Mapping[str, Step], special: "re.Pattern[str] | None") -> None:
        self._seed, self._special = cfg.seed, special
        self._links = [_link(cfg, name, step) for name, step in steps.items()]
        self._replies: Replies | None = None

    def begin(self, replies: Replies) -> None:
        """Read replies to steps from there."""
        self._replies = replies

    def __len__(self) -> int:
        return len(self._links)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(link.name for link in self._links)

    @property
    def needs(self) -> frozenset[str]:
        """The keys that rows must have already."""
        return frozenset().union(*(link.keys for link in self._links)) - self.names

    def question(self, row: "Row", step: int) -> Question | None:
        """The step's, of a row that holds the replies before it. None: the row has a special token of the model."""
        link = self._links[step]
        texts = (str(row[key]) for key in link.keys)
        if self._special is not None and any(map(self._special.search, texts)):
            return None
        return link.question(row, self._seed)

    def follow(
        self, row: "Row", steps: int, arrived: "Callable[[Completion], None] | None" = None
    ) -> tuple["Row", str | None]:
        """(the row with the replies to the first `steps`, the reason to drop it if one of them ends it).

        Args:
            arrived: is told each reply.
        """
        for number, link in enumerate(self._links[:steps]):
            question = self.question(row, number)
            if question is None:
                return row, special_tokens.REASON
            assert self._replies is not None, "a step is followed once it has been asked"
            reply = self._replies.to(question)
            if arrived is not None and reply.error is None:
                arrived(reply)
            value, reason = link.read(reply)
            if reason is not None:
                said = {"error": reply.error} if reply.error is not None else {link.name: reply.text}
                return row | said, f"{link.name}_{reason}"
            row = row | {link.name: value}
        return row, None


def _link(cfg: SampledStage, name: str, step: Step) -> _Link:
    drawn = cfg.sampling
    sampling = replace(
        drawn,
        max_tokens=drawn.max_tokens if step.max_tokens is None else step.max_tokens,
        temperature=drawn.temperature if step.temperature is None else step.temperature,
    )
    sampler = Sampler(replace(cfg, sampling=sampling, use_tools=False), step.prompt)
    return _Link(name, sampler, parser(step.parser, step.params), step.parser, required_keys(step.prompt))
