"""Everything that moves a score besides the model. Two scores are compared only when all of it is the same."""

from dataclasses import asdict, dataclass
from typing import Any

from nemo_ext.files import sha256_json

MAY_DIFFER = frozenset({"model_hash"})


@dataclass(frozen=True, kw_only=True)
class Contract:
    """The terms of one evaluation; every field is JSON-able, hashes are hex sha256."""

    benchmark_hash: str
    prompt_hash: str
    chat_template_hash: str
    stop: tuple[str, ...]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seeds: tuple[int, ...]
    extractor: str
    grader_version: str
    server: str  # kind and version, as in "vllm 0.11.0"
    model_hash: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"stop": list(self.stop), "seeds": list(self.seeds)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Contract":
        """The inverse of to_dict. Raises TypeError for a missing or unknown field."""
        return cls(**fields | {"stop": tuple(fields["stop"]), "seeds": tuple(fields["seeds"])})

    def digest(self) -> str:
        """Equal for contracts whose scores may be compared: the model is left out."""
        return sha256_json({key: value for key, value in self.to_dict().items() if key not in MAY_DIFFER})


def differences(a: Contract, b: Contract) -> dict[str, tuple[Any, Any]]:
    """Field -> (a's value, b's value) for every field that differs, the model's included."""
    left, right = a.to_dict(), b.to_dict()
    return {key: (left[key], right[key]) for key in left if left[key] != right[key]}


def compare(a: Contract, b: Contract) -> None:
    """Raises ValueError, naming each field, unless scores under `a` and `b` may be compared."""
    unlike = {key: pair for key, pair in differences(a, b).items() if key not in MAY_DIFFER}
    if unlike:
        listed = "; ".join(f"{key}: {left!r} against {right!r}" for key, (left, right) in unlike.items())
        raise ValueError(f"these scores cannot be compared, their contracts differ in {listed}. Evaluate both alike.")
