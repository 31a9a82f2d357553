"""Render, tokenise and mask rows of preferences, labels or ratings.

In:  rows with an answer, or two, and what somebody thought of it (nemo_ext/rows/outside/preferences.py):
     units=pairs    {"problem": "1+1?", "chosen": "It is 2.", "rejected": "It is 3."}; TRL's, UltraFeedback-binarized's and
                    HelpSteer2-Preference's columns; with needs=[reward] also chosen_reward and rejected_reward
     units=labels   {"problem": "1+1?", "generation": "It is 2.", "desirable": true}; TRL's `label`, a graded row's
                    is_correct
     units=ratings  {"prompt": "1+1?", "response": "It is 2.", "helpfulness": 4, "verbosity": 0}  (HelpSteer2)
Out: train/ and validation/  token folders (nemo_ext/megatron/data/token_folder.py). A pair is two samples, the chosen before
     the rejected; a labelled sample is followed by a mismatched one, its prompt with an answer to another one
     output.jsonl  one row per unit, {"id", "split", "num_tokens": [41, 38], "num_trained_tokens": [12, 9]}; dropped.jsonl;
     audit.txt, samples as they lie on disk with the trained tokens marked, to be looked at before a long run
Dropped: too_long (one of the answers), same_answers, no_shared_prompt, no_chosen, no_rejected, no_label, no_rating,
     no_reward, bad_reward and the like (not a finite number), no_preference, and what prepare_sft drops
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.models.model import Model
from nemo_ext.prompts.prompt import Prompt, prompt_hash
from nemo_ext.records.manifest import Facts
from recipes.stage import Stage

if TYPE_CHECKING:
    from nemo_ext.megatron.data.token_folder import PackedDataWriter
    from nemo_ext.models.chat_tokenizer import ChatTokenizer
    from nemo_ext.rows.row import Row
    from nemo_ext.samples.preference_samples import Unit
    from nemo_ext.samples.sft_samples import Dropped


@dataclass(kw_only=True)
class Config(Stage):
    input: str = field(default=MISSING, metadata={"path": True})
    """An earlier stage's folder, a .jsonl or .parquet file of your own, a pattern of them, a folder as the hub lays it out,
    or hf://<owner>/<data set>[@<revision>][/<folder>]."""
    split: str | None = None
    """The split whose files are read, in a folder or on the hub; several as train+validation."""
    columns: Any = None
    """What a column is here -> its name in the file, as {chosen: better, rejected: worse}; null: not taken."""
    units: str = MISSING
    """pairs, labels or ratings: what the objective trains on (dpo, ipo, rpo and reward_bradley_terry; kto;
    reward_regression)."""
    needs: list[str] = field(default_factory=list)
    """Of pairs, what each row must have besides: reward (for rpo), strength (for reward_bradley_terry)."""
    attributes: list[str] = field(default_factory=list)
    """Of ratings, the columns that hold them, in the order of the reward model's outputs."""
    allowed_special_tokens: list[str] = field(default_factory=list)
    """Special tokens that the text of rows may hold and that then are those tokens."""
    model: Model = MISSING
    """The model whose tokenizer and chat template are used."""
    prompt: Prompt | None = None
    """Renders a row's problem; the same that its answers were asked with."""
    seq_length: int = 4096
    """Tokens of the longest sample."""
    validation_fraction: float = 0.0
    """Share of the units held out, in [0, 1)."""
    audit_units: int = 10
    """Shown in audit.txt, of each split."""
    seed: int = 42
    """Decides which units are for validation."""
    workers: int | None = field(default=None, metadata={"decides": False})
    """Processes that tokenise; the result does not depend on it. None: one per core up to 8, and this process alone
    for little."""


def check(cfg: Config) -> None:
    from nemo_ext.megatron.preferences import PAIRS, RATINGS
    from nemo_ext.rows.outside.columns import check_columns
    from nemo_ext.samples.preference_samples import PAIR_VALUES, SAMPLES

    stage = f"stages.{cfg.name}"
    check_columns(f"{stage}.columns", cfg.columns)
    if cfg.units not in SAMPLES:
        raise ValueError(f"{stage}.units={cfg.units!r}; it may be one of {', '.join(SAMPLES)}")
    if cfg.needs and (cfg.units != PAIRS or not set(cfg.needs) <= set(PAIR_VALUES)):
        raise ValueError(f"{stage}.needs={cfg.needs}; with units=pairs it may name {' and '.join(PAIR_VALUES)}")
    if bool(cfg.attributes) != (cfg.units == RATINGS):
        raise ValueError(f"{stage}.attributes={cfg.attributes}: units=ratings needs them, and no other units do")
    if not 0 <= cfg.validation_fraction < 1:
        raise ValueError(f"{stage}.validation_fraction={cfg.validation_fraction}; it must be in [0, 1)")
    if cfg.workers is not None and cfg.workers < 1:
        raise ValueError(f"{stage}.workers={cfg.workers}; it must be at least 1")


def run(cfg: Config) -> Facts:
    from nemo_ext.models.chat_tokenizer import ChatTokenizer
    from nemo_ext.models.model_files import text_files
    from nemo_ext.rows.row import require_rows
    from nemo_ext.rows.sources import comes_meanwhile, data_files, data_patterns

    tokenizer, folder = ChatTokenizer(cfg.model), Path(cfg.output_dir)
    files = data_files(cfg.input, cfg.split, folder)
    writer = UnitWriter(cfg, tokenizer, folder, files)
    writer.write()
    require_rows(writer.rows.kept, cfg.name, writer.rows.dropped, writer.example)
    return Facts(
        inputs=files,
        listed=data_patterns(cfg.input, cfg.split),
        inputs_came_meanwhile=comes_meanwhile(cfg.input),
        model_files=text_files(cfg.model),
        outputs=[folder / "output.jsonl", folder / "audit.txt", *_token_files(folder)],
        rows_in=writer.rows.total,
        rows_out=writer.rows.kept,
        dropped=writer.rows.dropped,
        models={cfg.model.name: tokenizer.template_hash},
        prompts={cfg.prompt.name: prompt_hash(cfg.prompt)} if cfg.prompt else {},
        seeds={"split": cfg.seed},
        tokens={"samples": writer.num_tokens, "trained": writer.num_trained_tokens},
        figures=writer.figures(),
    )


def _token_files(folder: Path) -> list[Path]:
    from nemo_ext.megatron.data.token_folder import PackedData

    return sorted(
        path
        for name in ("train", "validation")
        if (folder / name).is_dir()
        for path in PackedData.open(folder / name).files
    )


class UnitWriter:
    """Streams units into the token folders of their split."""

    def __init__(self, cfg: Config, tokenizer: "ChatTokenizer", folder: Path, files: list[Path]) -> None:
        from nemo_ext.rows.row import RowWriter
        from nemo_ext.samples.held_out import HeldOut

        self.cfg, self.tokenizer, self.folder, self.files = cfg, tokenizer, folder, files
        self.rows, self.held_out = RowWriter(folder), HeldOut(cfg.validation_fraction, cfg.seed)
        self.counts = {"train": 0, "validation": 0}
        self.num_tokens = self.num_trained_tokens = self.num_cut = self.num_desirable = self.num_chosen_longer = 0
        self.example = ""

    def write(self) -> None:
        from nemo_ext.megatron.data.token_folder import CHAT_TEMPLATE, PackedDataWriter
        from nemo_ext.megatron.objective import UNITS
        from nemo_ext.megatron.preferences import ATTRIBUTES, LABELS, RATINGS
        from nemo_ext.records.files import write_text_atomic
        from nemo_ext.samples.mask_audit import audit

        facts: dict[str, Any] = {CHAT_TEMPLATE: self.tokenizer.template_hash, "model": self.cfg.model.name}
        facts[UNITS] = self.cfg.units
        facts |= {ATTRIBUTES: list(self.cfg.attributes)} if self.cfg.units == RATINGS else {}
        names = ["train", "validation"] if self.cfg.validation_fraction else ["train"]
        if (self.folder / "validation").is_dir():  # of an earlier run, which may have held some out
            shutil.rmtree(self.folder / "validation")
        each = 1 if self.cfg.units == RATINGS else 2
        with self.rows:
            with ExitStack() as stack:
                writers = {
                    name: stack.enter_context(PackedDataWriter(self.folder / name, facts, self._columns()))
                    for name in names
                }
                units = self._with_mismatched() if self.cfg.units == LABELS else self._units()
                for unit in units:
                    self._write_unit(unit, writers)
            shown = [audit(self.folder / name, self.tokenizer, self.cfg.audit_units, each) for name in names]
            write_text_atomic(self.folder / "audit.txt", "\n\n".join(filter(None, shown)) + "\n")

    def figures(self) -> dict[str, Any]:
        from nemo_ext.megatron.preferences import LABELS, PAIRS

        found: dict[str, Any] = {f"{split}_{self.cfg.units}": count for split, count in self.counts.items()}
        kept = self.rows.kept
        if self.cfg.units == PAIRS:
            found |= {"chosen_longer_share": round(self.num_chosen_longer / kept, 4)} if kept else {}
        if self.cfg.units == LABELS:
            found |= {"desirable": self.num_desirable, "undesirable": kept - self.num_desirable}
            found |= {"mismatched_cut": self.num_cut}
        return found

    def _columns(self) -> tuple[str, ...]:
        from nemo_ext.megatron.preferences import ATTRIBUTES, DESIRABLE, LABELS, PAIRS

        if self.cfg.units == PAIRS:
            return tuple(self.cfg.needs)
        return (DESIRABLE,) if self.cfg.units == LABELS else (ATTRIBUTES,)

    def _units(self) -> "Iterator[Unit]":
        """The units of the rows that are not dropped; those that are, are written."""
        from nemo_ext.records.progress import Progress
        from nemo_ext.samples.preference_samples import UnitMaker, UnitSettings
        from nemo_ext.samples.row_batches import made_samples
        from nemo_ext.samples.sft_samples import Dropped, SampleSettings

        cfg, progress, done = self.cfg, Progress(self.folder, "rows"), 0
        samples = SampleSettings(
            cfg.name, cfg.model, cfg.prompt, cfg.seq_length, "drop", dict(cfg.columns or {}), True,
            tuple(cfg.allowed_special_tokens),
        )  # fmt: skip
        settings = UnitSettings(cfg.units, samples, tuple(cfg.needs), tuple(cfg.attributes))
        make = UnitMaker(settings, self.tokenizer)
        for batch, outcomes in made_samples(self.files, partial(UnitMaker.load, settings), make, cfg.workers):
            for row, outcome in zip(batch.rows, outcomes, strict=True):
                if isinstance(outcome, Dropped):
                    self._drop(row, outcome)
                else:
                    yield outcome
            done += len(batch.rows)
            progress.update(done)

    def _with_mismatched(self) -> "Iterator[Unit]":
        """Labelled samples, each followed by its prompt with an answer to another one."""
        from dataclasses import replace

        from nemo_ext.megatron.preferences import DESIRABLE
        from nemo_ext.samples.mismatched import mismatched, with_other_answers

        labelled = ((unit, unit.samples[0]) for unit in self._units())
        for unit, own, other in with_other_answers(labelled):
            second = mismatched(own, other, self.cfg.seq_length)
            self.num_cut += second.truncated
            self.num_desirable += unit.values[0][DESIRABLE] > 0
            yield replace(unit, samples=(own, second), values=unit.values * 2)

    def _write_unit(self, unit: "Unit", writers: "dict[str, PackedDataWriter]") -> None:
        split = "validation" if self.rows.kept in self.held_out else "train"
        for made, values in zip(unit.samples, unit.values, strict=True):
            writers[split].add_bytes(made.tokens, made.loss_mask, values)
        tokens = [len(made.loss_mask) for made in unit.samples]
        trained = [made.loss_mask.count(1) for made in unit.samples]
        self.rows.keep({"id": unit.id, "split": split, "num_tokens": tokens, "num_trained_tokens": trained})
        self.counts[split] += 1
        self.num_tokens += sum(tokens)
        self.num_trained_tokens += sum(trained)
        self.num_chosen_longer += len(tokens) > 1 and tokens[0] > tokens[1]

    def _drop(self, row: "Row | str", outcome: "Dropped") -> None:
        lost = {"line": row} if isinstance(row, str) else row
        self.rows.drop(lost | ({"detail": outcome.detail} if outcome.detail else {}), outcome.reason)
        self.example = outcome.detail or self.example
