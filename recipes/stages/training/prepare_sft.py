"""Render, tokenise and mask rows for fine-tuning.

In:  rows in one of these layouts, or with other columns and `columns`
     {"problem": ..., "generated_solution": ...}    what this pipeline and OpenMathInstruct-2 write; also question or query
     {"question": ..., "answer": "... #### 72"}     GSM8K;  {"problem": ..., "solution": ...}  MATH, NuminaMath
     {"messages": [...], "tools": [...]}    its last turn is trained, earlier answers are context; so is `conversations`
     {"instruction": ..., "input": ..., "output": ..., "system": ...}  Alpaca;  {"prompt": ..., "response": ...}
     {"input": ..., "output": ...}, {"text": ...}    taken as they are
Out: train/ and validation/  token folders (nemo_ext/megatron/data/token_folder.py); output.jsonl  what was rendered, one row
     per sample, {"id", "split", "num_tokens", "num_trained_tokens"} and, of a sample cut short, "truncated"; dropped.jsonl;
     audit.txt, samples as they lie on disk with the trained tokens marked, to be looked at before a long run.
A row whose mask would not train its answer, the whole of it with its end (but for tool outputs, where they are masked), and
nothing else, stops the stage; so does a token that the model has no embedding for. Special tokens that rows have in their
text, columns that nothing would show and answers marked as wrong are dropped, each with its reason. The manifest counts the
rows of each layout.
Nothing is packed here: packs are made when they are trained on, so no topology is baked in.
"""

import logging
import shutil
from collections import Counter
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
    from nemo_ext.samples.sft_samples import Dropped, Made, RowBatch

log = logging.getLogger(__name__)

OVERLONG = ("drop", "truncate", "error")


@dataclass(kw_only=True)
class Config(Stage):
    input: str = field(default=MISSING, metadata={"path": True})
    """An earlier stage's folder, a .jsonl or .parquet file of your own, a pattern of them, a folder as the hub lays it out,
    hf://<owner>/<data set>[@<revision>][/<folder>], or toy://solved."""
    split: str | None = None
    """The split whose files are read, in a folder or on the hub; several as train+validation."""
    columns: Any = None
    """What a column is here -> its name in the file, as {problem: query, generated_solution: response}; null: not taken."""
    keep_incorrect: bool = False
    """Train rows whose is_correct is false, which are dropped as `incorrect` otherwise."""
    allowed_special_tokens: list[str] = field(default_factory=list)
    """Special tokens that the text of rows may hold and that then are those tokens, as <|python_tag|>."""
    mask_tool_outputs: bool = False
    """Leave the results of executed code, between <llm-code-output> marks or in ```output blocks, out of the loss; a row
    whose marks are unclear is dropped as `unclear_tool_output`. false: the whole answer is trained."""
    model: Model = MISSING
    """The model whose tokenizer and chat template are used."""
    prompt: Prompt | None = None
    """Renders a row's problem; evaluation must use the same one."""
    seq_length: int = 4096
    """Tokens of the longest sample."""
    overlong: str = "drop"
    """Longer samples: drop (as `too_long`), truncate (the answer is cut, and its end not trained; `prompt_too_long`
    where nothing of it would be left) or error (stop at the first)."""
    validation_fraction: float = 0.0
    """Share of the samples held out, in [0, 1) (the NeMo-RL guide: 0.05)."""
    audit_samples: int = 20
    """Shown in audit.txt, of each split."""
    seed: int = 42
    """Decides which samples are for validation."""
    workers: int | None = field(default=None, metadata={"decides": False})
    """Processes that tokenise; the result does not depend on it. None: one per core up to 8, and this process alone
    for less than 32 MiB of rows."""


def check(cfg: Config) -> None:
    from nemo_ext.rows.outside.columns import check_columns

    check_columns(f"stages.{cfg.name}.columns", cfg.columns)
    if not 0 <= cfg.validation_fraction < 1:
        raise ValueError(f"stages.{cfg.name}.validation_fraction={cfg.validation_fraction}; it must be in [0, 1)")
    if cfg.overlong not in OVERLONG:
        raise ValueError(f"stages.{cfg.name}.overlong={cfg.overlong!r}; it may be one of {OVERLONG}")
    if cfg.workers is not None and cfg.workers < 1:
        raise ValueError(f"stages.{cfg.name}.workers={cfg.workers}; it must be at least 1")


def run(cfg: Config) -> Facts:
    from nemo_ext.models.chat_tokenizer import ChatTokenizer
    from nemo_ext.models.model_files import text_files
    from nemo_ext.rows.row import require_rows
    from nemo_ext.rows.sources import comes_meanwhile, data_patterns

    tokenizer = ChatTokenizer(cfg.model)
    folder = Path(cfg.output_dir)
    files = _inputs(cfg)
    writer = SampleWriter(cfg, tokenizer, folder, files)
    writer.write()
    _require_template(cfg, writer)
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
        figures={
            "train_samples": writer.counts["train"],
            "validation_samples": writer.counts["validation"],
            "truncated_samples": writer.num_truncated,
            "end_tokens_stripped": writer.num_stripped,
            "layouts": dict(writer.layouts),
        }
        | ({"tool_output_tokens": writer.num_masked} if cfg.mask_tool_outputs else {}),
    )


def _token_files(folder: Path) -> list[Path]:
    from nemo_ext.megatron.data.token_folder import DATA, SAMPLES

    return sorted(path for name in (*SAMPLES, DATA) for path in folder.glob(f"*/{name}"))


def _require_template(cfg: Config, writer: "SampleWriter") -> None:
    """Raises ValueError when the chat template took no row at all: it is not the rows that are wrong."""
    from nemo_ext.samples.sft_samples import TEMPLATE_REASONS

    failed = sum(writer.rows.dropped[reason] for reason in TEMPLATE_REASONS)
    if failed and not writer.num_chat:
        raise ValueError(
            f"stages.{cfg.name}: the chat template of model {cfg.model.name} takes none of the {failed:,} rows that need "
            f"it; of the last, {writer.template_error}"
        )


def _inputs(cfg: Config) -> list[Path]:
    from nemo_ext.rows.sources import data_files

    return data_files(cfg.input, cfg.split, Path(cfg.output_dir))


class SampleWriter:
    """Streams rows into the token folders of their split."""

    def __init__(self, cfg: Config, tokenizer: "ChatTokenizer", folder: Path, files: list[Path]) -> None:
        from nemo_ext.rows.row import RowWriter
        from nemo_ext.samples.held_out import HeldOut

        self.cfg, self.tokenizer, self.folder, self.files = cfg, tokenizer, folder, files
        self.rows = RowWriter(folder)
        self.counts = {"train": 0, "validation": 0}
        self.num_tokens = self.num_trained_tokens = self.num_truncated = self.num_stripped = self.num_chat = 0
        self.num_masked = 0
        self.layouts: Counter[str] = Counter()
        self.example = self.template_error = ""
        self.held_out = HeldOut(cfg.validation_fraction, cfg.seed)

    def write(self) -> None:
        from nemo_ext.megatron.data.token_folder import CHAT_TEMPLATE, PackedDataWriter
        from nemo_ext.records.files import write_text_atomic
        from nemo_ext.records.progress import Progress
        from nemo_ext.samples.mask_audit import audit

        progress = Progress(self.folder, "rows")
        facts = {CHAT_TEMPLATE: self.tokenizer.template_hash, "model": self.cfg.model.name}
        names = ["train", "validation"] if self.cfg.validation_fraction else ["train"]
        if (self.folder / "validation").is_dir():  # of an earlier run, which may have held some out
            shutil.rmtree(self.folder / "validation")
        with self.rows:
            with ExitStack() as stack:
                writers = {name: stack.enter_context(PackedDataWriter(self.folder / name, facts)) for name in names}
                for batch, outcomes in self._outcomes():
                    for row, outcome in zip(batch.rows, outcomes, strict=True):
                        self._write_row(row, outcome, writers)
                    progress.update(self.rows.total)
            shown = [audit(self.folder / name, self.tokenizer, self.cfg.audit_samples) for name in names]
            write_text_atomic(self.folder / "audit.txt", "\n\n".join(filter(None, shown)) + "\n")

    def _outcomes(self) -> Iterator[tuple["RowBatch", "list[Made | Dropped]"]]:
        from nemo_ext.samples.row_batches import made_samples
        from nemo_ext.samples.sft_samples import SampleMaker, SampleSettings

        cfg = self.cfg
        settings = SampleSettings(
            cfg.name, cfg.model, cfg.prompt, cfg.seq_length, cfg.overlong, dict(cfg.columns or {}), cfg.keep_incorrect,
            tuple(cfg.allowed_special_tokens), cfg.mask_tool_outputs,
        )  # fmt: skip
        make = SampleMaker(settings, self.tokenizer)
        yield from made_samples(self.files, partial(SampleMaker.load, settings), make, cfg.workers)

    def _write_row(self, row: "Row | str", outcome: "Made | Dropped", writers: "dict[str, PackedDataWriter]") -> None:
        from nemo_ext.samples.sft_samples import Dropped

        if isinstance(outcome, Dropped):
            self._drop(row, outcome)
            return
        split = "validation" if self.rows.kept in self.held_out else "train"
        writers[split].add_bytes(outcome.tokens, outcome.loss_mask)
        tokens, trained = len(outcome.loss_mask), outcome.loss_mask.count(1)
        kept = {"id": outcome.id, "split": split, "num_tokens": tokens, "num_trained_tokens": trained}
        self.rows.keep(kept | ({"truncated": True} if outcome.truncated else {}))
        self.counts[split] += 1
        self.num_tokens += tokens
        self.num_trained_tokens += trained
        self.num_truncated += outcome.truncated
        self.num_stripped += outcome.end_stripped
        self.num_masked += outcome.num_masked
        self.num_chat += outcome.is_chat
        if outcome.layout not in self.layouts:
            log.info("%s: row %d is the first read as %s", self.cfg.name, self.rows.total, outcome.layout)
        self.layouts[outcome.layout] += 1

    def _drop(self, row: "Row | str", outcome: "Dropped") -> None:
        from nemo_ext.samples.sft_samples import TEMPLATE_REASONS

        lost = {"line": row} if isinstance(row, str) else row
        self.rows.drop(lost | ({"detail": outcome.detail} if outcome.detail else {}), outcome.reason)
        self.example = outcome.detail or self.example
        if outcome.reason in TEMPLATE_REASONS:
            self.template_error = outcome.detail or outcome.reason
