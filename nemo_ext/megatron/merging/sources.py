"""The models that are merged, each read a few rows at a time in fp32: Hugging Face folders, and checkpoints of trainings."""

from pathlib import Path
from typing import Protocol

import torch

from nemo_ext.megatron.checkpoint_files import require_head, require_whole
from nemo_ext.megatron.weights.blocks import CheckpointWeights
from nemo_ext.megatron.weights.file_slice import OpenFile
from nemo_ext.megatron.weights.hf import SafetensorsSource
from nemo_ext.megatron.weights.mapping import Piece, Rows
from nemo_ext.models.safetensors_file import DTYPE_NAMES, Entry, read_entries
from nemo_ext.models.shape import ModelShape

NAMED = {name: dtype for dtype, name in DTYPE_NAMES.items()}


class ModelSource(Protocol):
    folder: Path
    shape: ModelShape

    def read(self, piece: Piece, first_row: int, rows: Rows) -> torch.Tensor:
        """fp32 [number of rows, ...]: rows of a tensor, from `first_row` of its Hugging Face form on; `rows` are the same in
        Megatron's."""
        ...


class FolderSource:
    """A Hugging Face folder. Nothing is mapped: memory is what is read."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError for a folder that does not hold the model its config.json says, or holds it quantised."""
        self.folder, self.shape = folder, ModelShape.from_hf(folder)
        files = SafetensorsSource(folder).files  # which checks names and sizes
        entries = {file: read_entries(folder / file) for file in set(files.values())}
        self._open = {file: OpenFile(folder / file) for file in entries}
        self._places: dict[str, tuple[OpenFile, Entry]] = {}
        for name, file in files.items():
            entry = entries[file][name]
            if entry.dtype not in NAMED:
                raise ValueError(
                    f"{folder}: {name} is {entry.dtype}; models are merged from {', '.join(sorted(NAMED))}"
                )
            self._places[name] = self._open[file], entry

    def read(self, piece: Piece, first_row: int, rows: Rows) -> torch.Tensor:
        file, entry = self._places[piece.name]
        dtype, count = NAMED[entry.dtype], sum(number for _, number in rows)
        found = torch.empty(count, *piece.size[1:], dtype=dtype)
        file.read_into(entry.offset + first_row * found[0].numel() * dtype.itemsize, found.view(-1))
        return found.float()


class CheckpointSource:
    """A checkpoint of a training, its optimizer's fp32 weights where it has them."""

    def __init__(self, folder: Path, config: ModelShape) -> None:
        """`config`: the shape that the training's start model has. Raises ValueError for one that is not whole."""
        self.folder, self.shape = folder, require_head([folder], config)
        self._weights = CheckpointWeights([folder], self.shape)
        self._weights.warn_of_rounded()
        require_whole(folder)

    def read(self, piece: Piece, first_row: int, rows: Rows) -> torch.Tensor:
        return self._weights.read(piece, rows, torch.float32)


def require_alike(sources: "list[ModelSource]") -> ModelShape:
    """The shape that all of them have. Raises ValueError naming what differs."""
    first = sources[0]
    for other in sources[1:]:
        ours, theirs = vars(first.shape), vars(other.shape)
        differing = [name for name in ours if not name.startswith("_") and ours[name] != theirs.get(name)]
        if differing:
            name = differing[0]
            raise ValueError(
                f"{first.folder} and {other.folder} differ in {', '.join(differing)} ({name}: {ours[name]} and "
                f"{theirs[name]}): only models of one shape can be merged"
            )
    return first.shape
