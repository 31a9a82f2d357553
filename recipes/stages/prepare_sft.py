"""Render, tokenise and mask rows for fine-tuning.

In:  rows in one of these shapes
     {"problem": ..., "generated_solution": ...}    what this pipeline and OpenMathInstruct-2 write
     {"question": ..., "answer": "... #### 72"}     GSM8K;  {"problem": ..., "solution": ...}  MATH
     {"messages": [...]}    its last turn is trained, earlier answers are context
     {"input": ..., "output": ...}, {"text": ...}    taken as they are
Out: train/ and validation/  token folders (nemo_ext/megatron/data.py); output.jsonl  what was rendered, one row per
     sample, {"id", "split", "num_tokens", "num_trained_tokens"} and, of a sample cut short, "truncated"; dropped.jsonl;
     audit.txt, samples as they lie on disk with the trained tokens marked, to be looked at before a long run.
A row whose mask would not train its answer, the whole of it with its end, and nothing else, stops the stage.
Nothing is packed here: packs are made when they are trained on, so no topology is baked in.
"""

import math
import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.manifest import Facts
from nemo_ext.model import Model
from nemo_ext.prompts import Prompt, prompt_hash
from nemo_ext.toy.sources import TOY
from recipes.stage import Stage

if TYPE_CHECKING:
    from nemo_ext.chat import ChatTokenizer
    from nemo_ext.megatron.data import PackedDataWriter
    from nemo_ext.rows import Row
    from nemo_ext.sft_samples import Dropped, Made, RowBatch

OVERLONG = ("drop", "truncate", "error")
BATCH = 250
MAX_WORKERS = 8  # more than one process that reads and writes can feed
SMALL_BYTES = 32 << 20  # less is done before a worker has imported what it needs


@dataclass(kw_only=True)
class Config(Stage):
    input: str = MISSING
    """An earlier stage's folder, a .jsonl or .parquet file of your own, or `toy`."""
    model: Model = MISSING
    """Whose tokenizer and chat template."""
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
    """Of the choice of validation samples."""
    workers: int | None = None
    """Processes that tokenise; the result does not depend on it. None: one per core up to 8, and this process alone
    for less than 32 MiB of rows."""


def check(cfg: Config) -> None:
    if not 0 <= cfg.validation_fraction < 1:
        raise ValueError(f"stages.{cfg.name}.validation_fraction={cfg.validation_fraction}; it must be in [0, 1)")
    if cfg.overlong not in OVERLONG:
        raise ValueError(f"stages.{cfg.name}.overlong={cfg.overlong!r}; it may be one of {OVERLONG}")
    if cfg.workers is not None and cfg.workers < 1:
        raise ValueError(f"stages.{cfg.name}.workers={cfg.workers}; it must be at least 1")


def run(cfg: Config) -> Facts:
    from nemo_ext.chat import ChatTokenizer
    from nemo_ext.model_files import text_files
    from nemo_ext.rows import input_patterns, require_rows

    tokenizer = ChatTokenizer(cfg.model)
    folder = Path(cfg.output_dir)
    files = _inputs(cfg.input)
    writer = SampleWriter(cfg, tokenizer, folder, files)
    writer.write()
    require_rows(writer.rows.kept, cfg.name, writer.rows.dropped)
    return Facts(
        inputs=files,
        listed=[] if cfg.input == TOY else input_patterns(cfg.input),
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
        },
    )


def _token_files(folder: Path) -> list[Path]:
    from nemo_ext.megatron.data import DATA, SAMPLES

    return sorted(path for name in (*SAMPLES, DATA) for path in folder.glob(f"*/{name}"))


def _inputs(source: str) -> list[Path]:
    from nemo_ext.rows import input_files

    return [] if source == TOY else input_files(source)


class SampleWriter:
    """Streams rows into the token folders of their split."""

    def __init__(self, cfg: Config, tokenizer: "ChatTokenizer", folder: Path, files: list[Path]) -> None:
        from nemo_ext.rows import RowWriter

        self.cfg, self.tokenizer, self.folder, self.files = cfg, tokenizer, folder, files
        self.rows = RowWriter(folder)
        self.counts = {"train": 0, "validation": 0}
        self.num_tokens = self.num_trained_tokens = self.num_truncated = 0
        self._window, self._held_out = -1, -1

    def write(self) -> None:
        from nemo_ext.files import write_text_atomic
        from nemo_ext.megatron.data import PackedDataWriter
        from nemo_ext.megatron.mask_audit import audit
        from nemo_ext.progress import Progress

        progress = Progress(self.folder, "rows")
        facts = {"chat_template_hash": self.tokenizer.template_hash, "model": self.cfg.model.name}
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
        from nemo_ext.ordered_pool import ordered_map
        from nemo_ext.sft_samples import SampleMaker, SampleSettings

        cfg = self.cfg
        settings = SampleSettings(cfg.name, cfg.model, cfg.prompt, cfg.seq_length, cfg.overlong)
        workers = cfg.workers or _workers(self.files)
        if workers > 1:
            yield from ordered_map(partial(SampleMaker.load, settings), _batches(self.files), workers)
            return
        make = SampleMaker(settings, self.tokenizer)
        for batch in _batches(self.files):
            yield batch, make(batch)

    def _write_row(self, row: "Row | str", outcome: "Made | Dropped", writers: "dict[str, PackedDataWriter]") -> None:
        from nemo_ext.sft_samples import Dropped

        if isinstance(outcome, Dropped):
            lost = {"line": row} if isinstance(row, str) else row
            self.rows.drop(lost | ({"detail": outcome.detail} if outcome.detail else {}), outcome.reason)
            return
        split = self._split()
        writers[split].add_bytes(outcome.tokens, outcome.loss_mask)
        tokens, trained = len(outcome.loss_mask), outcome.loss_mask.count(1)
        kept = {"id": outcome.id, "split": split, "num_tokens": tokens, "num_trained_tokens": trained}
        self.rows.keep(kept | ({"truncated": True} if outcome.truncated else {}))
        self.counts[split] += 1
        self.num_tokens += tokens
        self.num_trained_tokens += trained
        self.num_truncated += outcome.truncated

    def _split(self) -> str:
        """Exactly `validation_fraction` of the samples: one of every 1 / fraction in a row, chosen by the seed.

        With 0.05 of 1,000,000 samples 950,000 are left, the NeMo-RL guide's 1,855 steps of 512.
        """
        fraction, index = self.cfg.validation_fraction, self.rows.kept
        if not fraction:
            return "train"
        window = int(index * fraction + 1e-9)
        if window != self._window:  # seeding takes longer than all else that is done for a row here
            first, end = (math.ceil(edge / fraction - 1e-9) for edge in (window, window + 1))
            self._window = window
            self._held_out = first + random.Random(f"{self.cfg.seed}/{window}").randrange(end - first)
        return "validation" if index == self._held_out else "train"


def _workers(files: list[Path]) -> int:
    from nemo_ext.ordered_pool import available_cores

    small = sum(file.stat().st_size for file in files) < SMALL_BYTES
    return 1 if small else min(MAX_WORKERS, available_cores())


def _batches(files: list[Path]) -> Iterator["RowBatch"]:
    from nemo_ext.rows import read_any
    from nemo_ext.sft_samples import RowBatch
    from nemo_ext.toy.sources import solved

    sources: list[tuple[str, Iterator[Any]]] = [(str(file), read_any(file)) for file in files] or [
        (TOY, iter(solved()))
    ]
    for name, rows in sources:
        first = 1
        while batch := list(islice(rows, BATCH)):
            yield RowBatch(name, first, batch)
            first += len(batch)
