"""Tokenised samples on disk.

A folder that `prepare_sft` wrote holds

    tokens.bin     uint32, every sample's tokens one after another
    loss_mask.bin  uint8, 1 where the token is one the model must learn to produce
    offsets.npy    int64 [n + 1], where each sample starts
    columns/       <name>.npy, float32 [n] or [n, width], for each value that samples have besides: reference_logprob, ...
    data.json      counts, the largest token id, the tokenizer's hash and, where there are any, the names of the columns

It is memory-mapped, and nothing in it depends on how it is packed or on how many processes train on it; which samples
a step sees, and in which packs, is batches.py's business. No torch here: what prepares data needs none.
"""

import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from nemo_ext.records.file_records import fingerprint
from nemo_ext.records.files import atomic_open, write_json_atomic

DATA = "data.json"
CHAT_TEMPLATE = "chat_template_hash"
"""Its key for the template that the samples were rendered with."""
SAMPLES = ("tokens.bin", "loss_mask.bin", "offsets.npy")
COLUMNS = "columns"
"""The folder of the samples' further values, and their names' key in data.json."""
SCANNED = 1 << 24  # tokens at a time


class PackedDataWriter:
    """Streams samples to disk; the folder is readable only once the `with` block has ended (data.json comes last).

    `columns` names the further values that every sample is added with.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], columns: Sequence[str] = ()) -> None:
        self.folder = folder
        self.facts = facts | ({COLUMNS: sorted(columns)} if columns else {})
        self.columns: dict[str, list[Any]] = {name: [] for name in columns}
        self.offsets = array("q", [0])
        self.num_trained_tokens = 0
        self.largest_token = -1
        self._contexts = [atomic_open(folder / name) for name in ("tokens.bin", "loss_mask.bin")]

    def __enter__(self) -> Self:
        (self.folder / DATA).unlink(missing_ok=True)  # of an earlier run, whose samples are about to be replaced
        self._tokens, self._mask = (context.__enter__() for context in self._contexts)
        return self

    def add(self, tokens: Sequence[int], loss_mask: Sequence[int], values: Mapping[str, Any] | None = None) -> None:
        """One sample: token ids [L], a 0/1 mask [L] of the tokens to be learnt, and of each column a number, or as many as
        every sample has."""
        self.add_bytes(np.asarray(tokens, np.uint32).tobytes(), np.asarray(loss_mask, np.uint8).tobytes(), values)

    def add_bytes(self, tokens: bytes, loss_mask: bytes, values: Mapping[str, Any] | None = None) -> None:
        """The same as it is on disk: uint32 and uint8."""
        assert len(tokens) == 4 * len(loss_mask), "one mask entry per token"
        assert (values or {}).keys() == self.columns.keys(), "a value of every column"
        for name, value in (values or {}).items():
            self.columns[name].append(value)
        if tokens:
            self.largest_token = max(self.largest_token, int(np.frombuffer(tokens, np.uint32).max()))
        self._tokens.write(tokens)
        self._mask.write(loss_mask)
        self.offsets.append(self.offsets[-1] + len(loss_mask))
        self.num_trained_tokens += loss_mask.count(1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for context in self._contexts:
            context.__exit__(kind, error, trace)
        if kind is None:
            with atomic_open(self.folder / "offsets.npy") as handle:
                np.save(handle, np.frombuffer(self.offsets, dtype=np.int64))
            for name, values in self.columns.items():
                with atomic_open(self.folder / COLUMNS / f"{name}.npy") as handle:
                    np.save(handle, np.asarray(values, np.float32))
            counts = {
                "num_samples": len(self.offsets) - 1,
                "num_tokens": self.offsets[-1],
                "num_trained_tokens": self.num_trained_tokens,
                "largest_token": self.largest_token,
            }
            write_json_atomic(self.folder / DATA, counts | self.facts)


class PackedData:
    """Memory-mapped samples. `len(data)` is their number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, Any] = json.loads((folder / DATA).read_text())
        self.offsets = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
        self.lengths = np.diff(self.offsets).astype(np.int32)
        self._tokens = _map(folder / "tokens.bin", np.uint32, self.num_tokens)
        self._mask = _map(folder / "loss_mask.bin", np.uint8, self.num_tokens)
        self.columns = {path.stem: _column(path, len(self)) for path in self._column_files}
        self._added: list[Path] = []
        self.reference_model: str | None = None
        """The hash of the weights that the added reference log-probabilities are of."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Raises ValueError when `folder` is not a finished data folder, or no longer whole."""
        if not (folder / DATA).is_file():
            raise ValueError(f"{folder} has no {DATA}: it is not a finished prepare_sft output")
        return cls(folder)

    def require_vocabulary(self, vocab_size: int) -> None:
        """Raises ValueError, naming token and sample, when a token has no embedding among `vocab_size`: a sharded model
        would train another one in its place."""
        largest = self.facts.get("largest_token")
        if largest is None:  # of a folder that does not say
            largest = max(
                (int(self._tokens[i : i + SCANNED].max()) for i in range(0, self.num_tokens, SCANNED)), default=-1
            )
        if largest < vocab_size:
            return
        place = next(i for i in range(len(self)) if (self.sample(i)[0] >= vocab_size).any())
        token = int(self.sample(place)[0].max())
        raise ValueError(
            f"{self.folder}: sample {place} has the token {token}, and the model has embeddings for the ids below "
            f"{vocab_size} (vocab_size in its config.json). Prepare the samples with this model's tokenizer, "
            "or resize its embeddings"
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        return int(self.offsets[-1])

    def add_column(self, name: str, values: np.ndarray, file: Path) -> None:
        """Take values [n] of the samples that another stage keeps in `file`, on which a training then rests, too."""
        self.columns[name] = values
        self._added.append(file)

    @property
    def _column_files(self) -> list[Path]:
        return [self.folder / COLUMNS / f"{name}.npy" for name in self.facts.get(COLUMNS, [])]

    @property
    def files(self) -> list[Path]:
        """What a training on it rests on."""
        return [*(self.folder / name for name in (*SAMPLES, DATA)), *self._column_files, *self._added]

    def fingerprint(self) -> str:
        """A hash of the samples; reads all of them."""
        return fingerprint([*(self.folder / name for name in SAMPLES), *self._column_files, *self._added])

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids [L] (uint32) and loss mask [L] (uint8) of one sample."""
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        return self._tokens[start:end], self._mask[start:end]


def _map(path: Path, dtype: type, count: int) -> np.ndarray:
    array = np.memmap(path, dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)  # nothing cannot be mapped
    if len(array) != count:
        raise ValueError(f"{path} has {len(array)} tokens where offsets.npy counts {count}: run prepare_sft again")
    return array


def _column(path: Path, count: int) -> np.ndarray:
    """float32 [count] or [count, width], memory-mapped."""
    try:
        values: np.ndarray = np.load(path, mmap_mode="r" if count else None, allow_pickle=False)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}): prepare the samples again") from error
    if len(values) != count:
        raise ValueError(
            f"{path} has {len(values)} values where offsets.npy counts {count} samples: prepare them again"
        )
    return values
