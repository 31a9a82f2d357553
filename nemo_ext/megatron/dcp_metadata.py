"""`.metadata` of a torch.distributed.checkpoint folder, unpickled without letting it name code to run."""

import pickle
from collections import OrderedDict
from pathlib import Path, PosixPath
from typing import Any

import torch
from torch.distributed.checkpoint import filesystem, metadata, planner
from torch.distributed.checkpoint.metadata import Metadata

RECORDS: tuple[Any, ...] = (
    metadata.BytesStorageMetadata,
    metadata.ChunkStorageMetadata,
    metadata.Metadata,
    metadata.MetadataIndex,
    metadata.StorageMeta,
    metadata.TensorProperties,
    metadata.TensorStorageMetadata,
    metadata._MEM_FORMAT_ENCODING,
    filesystem._StorageInfo,
    planner.BytesIOWriteData,
    planner.SavePlan,
    planner.TensorWriteData,
    planner.WriteItem,
    planner.WriteItemType,
    torch.serialization._get_layout,
    torch.Size,
    OrderedDict,
    PosixPath,
)
DTYPES = {("torch", name) for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
ALLOWED = {(record.__module__, record.__qualname__) for record in RECORDS} | DTYPES
"""Plain records, types and enumerations, and what looks a constant up by its name."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which checkpoint metadata has no use for")
        return super().find_class(module, name)


def read_metadata(folder: Path) -> Metadata:
    """What is stored where.

    Raises:
        ValueError: `folder` is no complete checkpoint, or its metadata is damaged or names anything but metadata.
    """
    path = folder / ".metadata"
    if not path.is_file():
        raise ValueError(f"{folder} has no .metadata: it is not a complete torch_dist checkpoint")
    try:
        with path.open("rb") as file:
            content = _Unpickler(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): use another checkpoint") from error
    if not isinstance(content, Metadata):
        raise ValueError(f"{path} is damaged (it holds a {type(content).__name__}): use another checkpoint")
    return content
