"""The contract of a score: all that moves it besides the model. Only scores under the same contract are compared."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from nemo_ext.records.files import sha256_json

MAY_DIFFER = frozenset({"model_hash"})
_LISTS = frozenset({"stop", "seeds"})


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The terms of one evaluation; every field is JSON-able, hashes are hex sha256.

    None: not known, as of rows that came from elsewhere. Scores under an unknown term compare with nothing, not even with
    others that leave it open.
    """

    benchmark_hash: str | None
    prompt_hash: str | None
    """A hash of the prompt with its worked examples."""
    chat_template_hash: str | None
    stop: tuple[str, ...] | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    seeds: tuple[int, ...] | None
    extractor: str
    grader_version: str
    server: str | None  # kind and version, as in "vllm 0.11.0"
    model_hash: str | None
    grader: str = "symbolic"
    """The grader whose verdict `is_correct` is: a key of each row's `verdicts`."""
    num_samples: int = 1
    few_shot: int | None = 0
    """Worked examples in the prompt."""
    search: str = "none"
    """How samples became one answer, where a search ran on top of them: its name and settings."""

    def to_dict(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Contract":
        """The inverse of to_dict; what scores of earlier versions lack has its default.

        Raises TypeError for a missing or unknown field.
        """
        tuples = {key: tuple(fields[key]) for key in _LISTS if isinstance(fields.get(key), list)}
        return cls(**fields | tuples)

    def digest(self) -> str:
        """Equal for contracts whose scores may be compared: the model is left out."""
        return sha256_json({key: value for key, value in self.to_dict().items() if key not in MAY_DIFFER})


UNKNOWN: dict[str, Any] = {
    each.name: None
    for each in fields(Contract)
    if each.name not in {"extractor", "grader_version", "grader", "search"}
} | {"num_samples": 1}
"""The terms of rows of which nothing but the text is known."""


def differences(a: Contract, b: Contract) -> dict[str, tuple[Any, Any]]:
    """Field -> (a's value, b's value) for every field that differs, the model's included, or that either leaves open."""
    left, right = a.to_dict(), b.to_dict()
    return {key: (left[key], right[key]) for key in left if left[key] != right[key] or left[key] is None}


def compare(a: Contract, b: Contract, allow_mismatch: bool = False) -> dict[str, tuple[Any, Any]]:
    """The fields besides the model in which the two differ: none, unless `allow_mismatch`.

    Raises ValueError, naming each field, unless scores under `a` and `b` may be compared.
    """
    unlike = {key: pair for key, pair in differences(a, b).items() if key not in MAY_DIFFER}
    if unlike and not allow_mismatch:
        raise ValueError(
            f"these scores cannot be compared, their contracts differ in {in_words(unlike)}. Evaluate both alike."
        )
    return unlike


def in_words(unlike: dict[str, tuple[Any, Any]]) -> str:
    """Each difference on one line, `not known` for None."""
    differences = {
        key: [("not known" if value is None else repr(value)) for value in pair] for key, pair in unlike.items()
    }
    return "; ".join(f"{key}: {left} against {right}" for key, (left, right) in differences.items())
