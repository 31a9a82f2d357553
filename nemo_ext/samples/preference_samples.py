"""Rows of preferences and ratings -> units of samples: what prepare_preferences' workers do.

A unit is what an objective takes as one: a pair (chosen before rejected), a labelled sample, a rated one. Its samples
are made as prepare_sft makes them, with the same checks of the mask. A row is dropped where one of its answers would be.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

from nemo_ext.megatron.preferences import ATTRIBUTES, DESIRABLE, LABELS, PAIRS, RATINGS, REWARD, STRENGTH
from nemo_ext.models.chat_tokenizer import ChatTokenizer
from nemo_ext.rows.outside.columns import BadRow, renamed
from nemo_ext.rows.outside.preferences import labelled_of, pair_of, rated_of
from nemo_ext.rows.row import Row, content_id
from nemo_ext.samples.sft_samples import Dropped, Made, RowBatch, SampleMaker, SampleSettings

SAMPLES = {PAIRS: 2, LABELS: 1, RATINGS: 1}
"""Kind of unit -> answers of a row."""
PAIR_VALUES = (REWARD, STRENGTH)
Values = dict[str, Any]


@dataclass(frozen=True)
class UnitSettings:
    units: str
    samples: SampleSettings
    values: tuple[str, ...] = ()
    """Of a pair: reward, strength."""
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unit:
    id: str
    samples: tuple[Made, ...]
    values: tuple[Values, ...]
    """Of each sample, its value in each column."""


@dataclass(frozen=True)
class _Answers:
    """A row as one row for each answer."""

    rows: tuple[Row, ...]
    values: tuple[Values, ...]


class UnitMaker:
    """Turns batches into units: `maker(batch)` has a Unit or a Dropped for every row, in order.

    Raises:
        ValueError: as SampleMaker.
    """

    def __init__(self, settings: UnitSettings, tokenizer: ChatTokenizer) -> None:
        self.settings = settings
        self._make = SampleMaker(replace(settings.samples, columns={}, keep_incorrect=True), tokenizer)

    @classmethod
    def load(cls, settings: UnitSettings) -> Self:
        """Load it in a process that is one of several."""
        return cls(settings, SampleMaker.load(settings.samples).tokenizer)

    def __call__(self, batch: RowBatch) -> list[Unit | Dropped]:
        each = SAMPLES[self.settings.units]
        found = [self._answers(row) for row in batch.rows]
        empty: tuple[Row | str, ...] = ("",) * each  # keeps the place of a row that is dropped
        rows = [row for answers in found for row in (answers.rows if isinstance(answers, _Answers) else empty)]
        made = self._make(RowBatch(batch.source, batch.first, rows, each))
        return [
            answers
            if isinstance(answers, Dropped)
            else self._unit(batch.rows[i], answers, made[each * i : each * (i + 1)])
            for i, answers in enumerate(found)
        ]

    def _answers(self, row: Row | str) -> _Answers | Dropped:
        if isinstance(row, str):
            return Dropped("malformed_json")
        columns = self.settings.samples.columns
        try:
            return self._split(renamed(row, columns) if columns else row)
        except BadRow as error:
            return Dropped(str(error), error.detail)

    def _split(self, row: Row) -> _Answers:
        if self.settings.units == PAIRS:
            return self._pair(row)
        if self.settings.units == LABELS:
            answered, desirable = labelled_of(row)
            return _Answers((answered,), ({DESIRABLE: float(desirable)},))
        answered, ratings = rated_of(row, self.settings.attributes)
        return _Answers((answered,), ({ATTRIBUTES: ratings},))

    def _pair(self, row: Row) -> _Answers:
        pair, values = pair_of(row), self.settings.values
        given: dict[str, Any] = {REWARD: pair.rewards, STRENGTH: pair.strength}
        for name in values:
            if given[name] is None:
                raise BadRow(f"no_{name}", f"stages.{self.settings.samples.stage}.needs asks for it")
        both: tuple[Values, Values] = ({}, {})
        for place, each in enumerate(both):
            each.update({name: given[name][place] if name == REWARD else given[name] for name in values})
        return _Answers((pair.chosen, pair.rejected), both)

    def _unit(self, row: Row | str, answers: _Answers, made: list[Made | Dropped]) -> Unit | Dropped:
        for place, each in enumerate(made):
            if isinstance(each, Dropped):
                which = f"{('chosen', 'rejected')[place]}: " if len(made) > 1 else ""
                return Dropped(each.reason, which + (each.detail or each.reason))
        samples = tuple(each for each in made if isinstance(each, Made))
        if len(samples) > 1 and samples[0].prompt != samples[1].prompt:
            return Dropped("no_shared_prompt", "chosen and rejected are asked in different words")
        if len(samples) > 1 and samples[0].tokens == samples[1].tokens:
            return Dropped("same_answers")
        given = row.get("id") if isinstance(row, dict) else None
        identity = str(given) if given not in (None, "") else content_id(*(each.tokens.hex() for each in samples))
        return Unit(identity, samples, answers.values)
