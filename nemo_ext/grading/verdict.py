"""A verdict on two answers, and the rule that gave it."""

from dataclasses import dataclass
from enum import StrEnum


class Equality(StrEnum):
    """Three answers, since a comparison that ran out of time has shown nothing."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNDECIDED = "undecided"


EQUAL, DIFFERENT, UNDECIDED = Equality.EQUAL, Equality.DIFFERENT, Equality.UNDECIDED
_AS_BOOL = {EQUAL: True, DIFFERENT: False, UNDECIDED: None}


@dataclass(frozen=True)
class Verdict:
    """What was decided, and by which rule."""

    equality: Equality
    method: str

    @property
    def equal(self) -> bool | None:
        """True, False, or None when undecided."""
        return _AS_BOOL[self.equality]

    def __bool__(self) -> bool:
        """True only for EQUAL, so an undecided pair counts as wrong."""
        return self.equality is EQUAL
