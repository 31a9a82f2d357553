"""The head of a model, on top of its last layer: logits over the vocabulary, or a few numbers. Light imports only.

{"kind": "regression", "outputs": 1}     as it is written in model.json and, as text, in checkpoint.json
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SCORE = "score.weight"
"""A regression head's weight [outputs, hidden], here and in transformers' *ForSequenceClassification."""
CAUSAL, CLASSIFICATION = "ForCausalLM", "ForSequenceClassification"
"""Ends of the names of transformers' classes with either head."""
DEFAULT_LABELS = 2
"""What transformers takes for the outputs of a config.json that does not name them."""


@dataclass(frozen=True)
class Vocabulary:
    """The output layer of a language model, tied to its embedding or not."""

    kind: str = field(default="vocabulary", init=False)

    def __str__(self) -> str:
        return "vocabulary head"


@dataclass(frozen=True)
class Regression:
    """A linear layer without bias from the hidden size to `outputs` numbers, in the model's own dtype: a reward model."""

    kind: str = field(default="regression", init=False)
    outputs: int

    def __str__(self) -> str:
        return f"regression head of {self.outputs} output{'s' if self.outputs > 1 else ''}"

    def __post_init__(self) -> None:
        if self.outputs < 1:
            raise ValueError(f"a regression head of {self.outputs} outputs: it must have at least 1")


Head = Vocabulary | Regression


def described(head: Head) -> str:
    """The head on one line: {"kind": "vocabulary"}"""
    return json.dumps(asdict(head), sort_keys=True)


def head_of(fields: Mapping[str, Any] | None) -> Head:
    """The inverse of dataclasses.asdict; None, where nothing is said of it, is a vocabulary's."""
    return Regression(fields["outputs"]) if fields and fields["kind"] == "regression" else Vocabulary()


def head_of_config(config: Mapping[str, Any]) -> Head:
    """The head that a config.json's `architectures` and labels say."""
    if not any(name.endswith(CLASSIFICATION) for name in config.get("architectures") or ()):
        return Vocabulary()
    labels = config.get("id2label")
    return Regression(len(labels) if labels else config.get("num_labels") or DEFAULT_LABELS)


def with_labels(config: Mapping[str, Any], classifier: str, outputs: int) -> dict[str, Any]:
    """A config.json by which transformers' AutoModelForSequenceClassification opens the model as `classifier`.

    transformers scores the last token that is not `pad_token_id`: where that is also a token that ends an answer it would
    score another one than was trained, and the config names no padding.
    """
    ends = config.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    labels = {str(number): f"LABEL_{number}" for number in range(outputs)}
    if head_of_config(config) == Regression(outputs) and config.get("id2label"):
        labels = config["id2label"]
    changed: dict[str, Any] = {
        "architectures": [classifier],
        "id2label": labels,
        "label2id": {label: int(number) for number, label in labels.items()},
        "problem_type": "regression",
    }
    changed |= {"pad_token_id": None} if config.get("pad_token_id") in ends else {}
    return {name: value for name, value in config.items() if name != "num_labels"} | changed
