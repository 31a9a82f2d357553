"""The base of every training objective, and how an `objective:` mapping becomes one.

A kind is a file: `objective: {kind: sft}` is nemo_ext/megatron/objectives/sft.py. Such a file has
    Config(Objective)     a dataclass: its fields are the mapping's, documented
with `loss` and, where they are not those below, `columns`, `samples_per_unit`, `figures` and `head`; with a first pass,
`prepare`, and `measure` where that pass asks for something else than the loss.
Megatron adds up what `loss` returns over all packs of a step and divides once, so that a loss may be the mean over tokens,
samples or pairs. Light imports only: the login node reads this, and a kind imports torch inside its functions.
"""

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import MISSING

from nemo_ext import plug_ins
from nemo_ext.megatron import objectives
from nemo_ext.models.head import Head, Vocabulary
from nemo_ext.models.shape import ModelShape

if TYPE_CHECKING:
    import torch

    from nemo_ext.megatron.data.token_folder import PackedData
    from nemo_ext.megatron.runtime.pack_output import PackOutput

SFT = {"kind": "sft"}
UNITS = "units"
"""A token folder's key in data.json for what its samples are."""


@dataclass(frozen=True)
class Loss:
    """Of one pack. All scalars, of which `total` is what gradients are taken of."""

    total: "torch.Tensor"
    """The sum of the losses, float."""
    count: "torch.Tensor | int"
    """What the step's total is divided by: tokens, samples or pairs."""
    figures: Mapping[str, "tuple[torch.Tensor, torch.Tensor | int]"] = field(default_factory=dict)
    """Name -> (sum, count) of each of `figures`, whose quotient over the whole step is logged."""
    samples: "torch.Tensor | None" = None
    """[k], a value of each of the pack's samples, for a pass that is after those."""


@dataclass(kw_only=True)
class Objective(ABC):
    kind: str = MISSING
    """A file name in nemo_ext/megatron/objectives."""

    units: ClassVar[str] = ""
    """What the token folder must hold by its data.json: pairs, labels or ratings (prepare_preferences); "": samples that
    stand for themselves (prepare_sft)."""
    samples_per_unit: ClassVar[int] = 1
    """2 where samples come in pairs, the chosen before the rejected: neighbours in the token folder, which then share a pack
    and a step. A step has global_batch_size units."""
    counts_tokens: ClassVar[bool] = False
    """Whether `loss` counts trained tokens, weighed as loss_mean says."""
    loss_samples: ClassVar[tuple[int, ...] | None] = None
    """Places in a unit of the samples that `loss` sees; None: all of them."""
    first_pass: ClassVar[bool] = False
    """Whether each step is first run forward as a whole, for `prepare`."""
    first_pass_samples: ClassVar[tuple[int, ...] | None] = None
    """Places in a unit of the samples that it runs; None: all of them."""
    needs_logits: ClassVar[bool] = False
    """Whether `loss` reads `output.logits`, which are then kept of every token, trained or not."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Values of every sample that the token folder must have, as reference_logprob."""
        return ()

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of what `loss` and `measure` report besides the loss."""
        return ()

    def head(self, shape: ModelShape) -> Head:
        """What the model is trained with on top of its last layer; `shape` is the start model's."""
        return Vocabulary()

    @abstractmethod
    def loss(self, output: "PackOutput") -> Loss:
        """The loss of one pack's samples, on the last pipeline stage. Context parallel ranks each have a part of the
        tokens: what is added up over tokens, as in sft, is the part's; what needs a sample's sum or its last token
        takes it from `output.sample_sums` or `output.last_outputs`, which are the whole sample's on each of them."""

    def measure(self, output: "PackOutput") -> Loss:
        """What a pack of the first pass reports, for `prepare`; of its loss nothing is used."""
        return self.loss(output)

    def prepare(self, figures: Mapping[str, float]) -> None:
        """Take the first pass's figures (those with a count) of the whole step before its losses are asked for, as
        KTO takes its baseline. Called on all ranks alike, where `first_pass` is true."""
        raise NotImplementedError(f"objective.kind={self.kind} asks for a first pass and takes nothing from it")

    def check_facts(self, facts: Mapping[str, Any]) -> None:
        """Raise ValueError for a token folder, by its data.json, that was not prepared for these settings."""
        return

    def remark(self, figures: Mapping[str, float]) -> str:
        """What the log should say of a step with these figures; "": nothing."""
        return ""


def kinds() -> list[str]:
    return plug_ins.names(objectives)


def load(mapping: Mapping[str, Any]) -> Objective:
    """The objective of a mapping.

    Raises:
        ValueError: an unknown kind or key, a value of the wrong type, or a required one left out.
    """
    kind = mapping.get("kind")
    if kind not in kinds():
        raise ValueError(f"objective.kind={kind!r}: unknown; it may be one of {kinds()}")
    config = importlib.import_module(f"nemo_ext.megatron.objectives.{kind}").Config
    objective = plug_ins.typed("objective", mapping, config)
    assert isinstance(objective, Objective), "a plug-in's Config extends Objective"
    return objective


def trained_shape(mapping: Mapping[str, Any], shape: ModelShape) -> ModelShape:
    """The start model's shape with the head that the mapping's objective trains.

    Raises:
        ValueError: the start model has another head than its vocabulary's or this one.
    """
    chosen = load(mapping)
    try:
        return shape.with_head(chosen.head(shape))
    except ValueError as error:
        raise ValueError(f"objective.kind={chosen.kind}: {error}") from error


def samples_per_step(mapping: Mapping[str, Any], global_batch_size: int) -> int:
    """Samples of a step of so many units of the mapping's objective."""
    return global_batch_size * load(mapping).samples_per_unit


def described(objective: Objective) -> str:
    """All that decides the loss, on one line, by which a checkpoint knows it: {"kind": "sft"}"""
    return json.dumps(asdict(objective), sort_keys=True)


def require_columns(objective: Objective, data: "PackedData") -> None:
    """Raises ValueError when the samples are of another kind than the objective's, or lack what it needs of them."""
    held = data.facts.get(UNITS, "")
    if held != objective.units:
        names = [units or "samples that stand for themselves" for units in (held, objective.units)]
        raise ValueError(
            f"{data.folder} holds {names[0]}, and objective.kind={objective.kind} trains on {names[1]}: prepare the samples "
            "for it, with prepare_preferences or prepare_sft"
        )
    objective.check_facts(data.facts)
    missing = [name for name in objective.columns if name not in data.columns]
    if missing:
        raise ValueError(
            f"{data.folder} has no column {', '.join(missing)}, which objective.kind={objective.kind} needs; it has "
            f"{sorted(data.columns) or 'none'}. Prepare the samples with a stage that writes it"
        )
    if len(data) % objective.samples_per_unit:
        raise ValueError(
            f"{data.folder} has {len(data)} samples, and objective.kind={objective.kind} takes them in runs of "
            f"{objective.samples_per_unit}: prepare them for it"
        )
