"""Render, tokenise and mask rows for fine-tuning.

In:  rows in one of these shapes
     {"problem": ..., "generated_solution": ...}    what this pipeline and OpenMathInstruct-2 write
     {"question": ..., "answer": "... #### 72"}     GSM8K;  {"problem": ..., "solution": ...}  MATH
     {"messages": [...]}, {"input": ..., "output": ...}, {"text": ...}    taken as they are
Out: train/ and validation/  token folders (nemo_ext/megatron/data.py); output.jsonl  what was rendered, one row per
     sample, {"id", "split", "num_tokens", "num_trained_tokens"}; dropped.jsonl; audit.txt, samples with the trained
     tokens marked, to be looked at before a long run.
Nothing is packed here: steps are packed when they are drawn, so no topology is baked in.
"""

import math
import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
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
    from nemo_ext.rows import Row

BATCH = 1000


@dataclass(kw_only=True)
class Config(Stage):
    input: str = MISSING
    """An earlier stage's folder, a .jsonl or .parquet file of your own, or `toy`."""
    model: Model = MISSING
    """Whose tokenizer and chat template."""
    prompt: Prompt | None = None
    """Renders a row's problem; evaluation must use the same one."""
    seq_length: int = 4096
    """Tokens; longer samples are dropped as `too_long`."""
    validation_fraction: float = 0.0
    """Share of the samples held out, in [0, 1) (the NeMo-RL guide: 0.05)."""
    audit_samples: int = 20
    seed: int = 42
    """Of the choice of validation samples."""


def check(cfg: Config) -> None:
    if not 0 <= cfg.validation_fraction < 1:
        raise ValueError(f"stages.{cfg.name}.validation_fraction={cfg.validation_fraction}; it must be in [0, 1)")


def run(cfg: Config) -> Facts:
    from nemo_ext.chat import ChatTokenizer
    from nemo_ext.rows import require_rows

    tokenizer = ChatTokenizer(cfg.model)
    folder = Path(cfg.output_dir)
    files = _inputs(cfg.input)
    writer = SampleWriter(cfg, tokenizer, folder, files)
    writer.write()
    require_rows(writer.rows.kept, cfg.name, writer.rows.dropped)
    return Facts(
        inputs=files,
        outputs=[folder / "output.jsonl", *sorted(folder.glob("*/tokens.bin")), *sorted(folder.glob("*/offsets.npy"))],
        rows_in=writer.rows.total,
        rows_out=writer.rows.kept,
        dropped=writer.rows.dropped,
        models={cfg.model.name: tokenizer.template_hash},
        prompts={cfg.prompt.name: prompt_hash(cfg.prompt)} if cfg.prompt else {},
        seeds={"split": cfg.seed},
        tokens={"samples": writer.num_tokens, "trained": writer.num_trained_tokens},
        figures={"train_samples": writer.counts["train"], "validation_samples": writer.counts["validation"]},
    )


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
        self.num_tokens = self.num_trained_tokens = 0
        self.audit: list[str] = []

    def write(self) -> None:
        from nemo_ext.files import write_text_atomic
        from nemo_ext.megatron.data import PackedDataWriter
        from nemo_ext.progress import Progress

        progress = Progress(self.folder, "rows")
        facts = {"chat_template_hash": self.tokenizer.template_hash, "model": self.cfg.model.name}
        names = ["train", "validation"] if self.cfg.validation_fraction else ["train"]
        with self.rows, ExitStack() as stack:
            writers = {name: stack.enter_context(PackedDataWriter(self.folder / name, facts)) for name in names}
            for batch in _batches(_read(self.files)):
                self._write_batch(batch, writers)
                progress.update(self.rows.total)
            write_text_atomic(self.folder / "audit.txt", "\n\n".join(self.audit) + "\n")

    def _write_batch(self, batch: list[Any], writers: dict[str, Any]) -> None:
        texts: list[str] = []
        good: list[tuple[Row, bool]] = []
        for row in batch:
            if isinstance(row, str):
                self.rows.drop({"line": row}, "malformed_json")
                continue
            try:
                prompt, answer = self._texts(row)
            except Unusable as error:
                self.rows.drop(row, str(error))
                continue
            good.append((row, bool(prompt)))
            texts += [prompt, answer]
        ids = self.tokenizer.batch_ids(texts)
        for (row, has_prompt), prompt_ids, answer_ids in zip(good, ids[::2], ids[1::2], strict=True):
            self._write_sample(row, prompt_ids if has_prompt else [], answer_ids, writers)

    def _write_sample(self, row: "Row", prompt: list[int], answer: list[int], writers: dict[str, Any]) -> None:
        from nemo_ext.chat import sample
        from nemo_ext.rows import content_id

        if len(prompt) + len(answer) > self.cfg.seq_length:
            self.rows.drop(row, "too_long")
            return
        made = sample(prompt, answer)
        identity = str(row.get("id") or content_id(str(made.tokens)))
        split = self._split()
        writers[split].add(made.tokens, made.loss_mask)
        trained = sum(made.loss_mask)
        self.rows.keep({"id": identity, "split": split, "num_tokens": len(made.tokens), "num_trained_tokens": trained})
        self.counts[split] += 1
        self.num_tokens += len(made.tokens)
        self.num_trained_tokens += trained
        if len(self.audit) < self.cfg.audit_samples:
            decode = self.tokenizer.tokenizer.decode
            self.audit.append(f"--- {identity}: not trained\n{decode(prompt)}\n--- trained\n{decode(answer)}")

    def _split(self) -> str:
        """Exactly `validation_fraction` of the samples: one of every 1 / fraction in a row, chosen by the seed.

        With 0.05 of 1,000,000 samples 950,000 are left, the NeMo-RL guide's 1,855 steps of 512.
        """
        fraction, index = self.cfg.validation_fraction, self.rows.kept
        if not fraction:
            return "train"
        window = int(index * fraction + 1e-9)
        first, end = (math.ceil(edge / fraction - 1e-9) for edge in (window, window + 1))
        chosen = first + random.Random(f"{self.cfg.seed}/{window}").randrange(end - first)
        return "validation" if index == chosen else "train"

    def _texts(self, row: "Row") -> tuple[str, str]:
        """(prompt, answer) of a row; an empty prompt means that all of the text is trained."""
        if "text" in row:
            return "", _required(row, "text") + str(self.tokenizer.tokenizer.eos_token)
        if "messages" in row:
            messages = row["messages"]
            if not messages or messages[-1].get("role") != "assistant" or not messages[-1].get("content", "").strip():
                raise Unusable("no_assistant_turn")
            return self.tokenizer.chat_texts(messages[:-1], messages[-1]["content"])
        if "input" in row:
            return self.tokenizer.base_texts(_required(row, "input"), _required(row, "output"))
        return self._problem_texts(row)

    def _problem_texts(self, row: "Row") -> tuple[str, str]:
        from nemo_ext.datasets import BadRow, normalise
        from nemo_ext.prompts import render

        try:
            normal = normalise(row, source="")
        except BadRow as error:
            raise Unusable(str(error)) from error
        solution = normal.get("generated_solution") or normal.get("solution")
        if not solution:
            raise Unusable("no_solution")
        if self.cfg.prompt is None:
            raise ValueError(f"stages.{self.cfg.name}.prompt is not set, and rows with a problem need one")
        rendered = render(self.cfg.prompt, normal)
        if isinstance(rendered, str):
            return self.tokenizer.base_texts(rendered, solution)
        return self.tokenizer.chat_texts(rendered, solution)


class Unusable(ValueError):
    """A row to drop; the message is the reason."""


def _required(row: "Row", key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise Unusable(f"no_{key}")
    return value


def _read(files: list[Path]) -> Iterator[Any]:
    from nemo_ext.rows import read_any
    from nemo_ext.toy.sources import solved

    if not files:
        yield from solved()

    for file in files:
        yield from read_any(file)


def _batches(rows: Iterator[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
