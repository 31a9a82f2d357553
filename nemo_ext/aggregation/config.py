"""Settings of how samples become one answer. Light imports only: stages put these in their Config."""

from dataclasses import dataclass

METHODS = ("majority", "weighted", "best_of_n")
WEIGHTS = ("raw", "sigmoid", "exp")


@dataclass(kw_only=True)
class AnswerRule:
    """Which answers may be voted for. The defaults leave answers as they are; NuminaMath's rule is window_chars=100,
    integers=true, modulus=1000, non_negative=true, default="0"."""

    window_chars: int | None = None
    """The box must end within so many of the text's last characters; one before is not taken. None: anywhere."""
    integers: bool = False
    """Whole numbers only, in canonical digits: 1{,}000 and 1e3 are 1000. Others are not answers; nothing is rounded."""
    non_negative: bool = False
    """Negative numbers are not answers. With integers."""
    modulus: int | None = None
    """The remainder is the answer. With integers."""
    default: str | None = None
    """The answer where no sample has one. None: no answer."""

    def __post_init__(self) -> None:
        for name in ("window_chars", "modulus"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"rule.{name}={value}: it must be at least 1, or null")
        if (self.modulus is not None or self.non_negative) and not self.integers:
            raise ValueError("rule.modulus and rule.non_negative are for whole numbers: set rule.integers=true")


@dataclass(kw_only=True)
class Choosing:
    method: str = "majority"
    """majority: the answer most samples gave. weighted: the one whose samples' rewards add up to most (rm_majority in
    NeMo-Skills). best_of_n: that of the sample with the highest reward among those with an answer (rm_best)."""
    k: int | None = None
    """Only the first k samples. None: all."""
    equivalent: bool = True
    """Spellings of one value are one answer, as a grader finds them equal. false: equal strings alone."""
    reward_weight: str = "raw"
    """What a reward weighs in `weighted`: raw (none may be negative), sigmoid or exp of it."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"choosing.method={self.method!r}: choose one of {', '.join(METHODS)}")
        if self.reward_weight not in WEIGHTS:
            raise ValueError(f"choosing.reward_weight={self.reward_weight!r}: choose one of {', '.join(WEIGHTS)}")
        if self.k is not None and self.k < 1:
            raise ValueError(f"choosing.k={self.k}: it must be at least 1, or null for all samples")

    @property
    def needs_rewards(self) -> bool:
        return self.method != "majority"
