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


class _OldMetadata(Metadata):
    """What megatron-core 0.15 wrote in Metadata's place: it keeps each rank's plan as well."""


class _OldSavePlan(planner.SavePlan):
    """A rank's plan as megatron-core 0.13 to 0.15 wrote it."""


_WRITER = "megatron.core.dist_checkpointing.strategies.torch"
STAND_INS: dict[tuple[str, str], type] = {
    (_WRITER, "MCoreMetadata"): _OldMetadata,
    (_WRITER, "MCoreSavePlan"): _OldSavePlan,
}
"""Classes that megatron-core no longer has -> ours, with the same fields and no code."""


class _UnknownClass(Exception):
    """The metadata names a class that is neither a plain record nor one of the stand-ins."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in STAND_INS:
            return STAND_INS[module, name]
        if (module, name) not in ALLOWED:
            raise _UnknownClass(f"{module}.{name}")
        return super().find_class(module, name)


def read_metadata(folder: Path) -> Metadata:
    """What is stored where.

    Raises:
        ValueError: `folder` is not a complete checkpoint, its metadata is damaged, or it names a class that is unknown here.
    """
    path = folder / ".metadata"
    if not path.is_file():
        raise ValueError(f"{folder} has no .metadata: it is not a complete torch_dist checkpoint")
    try:
        with path.open("rb") as file:
            content = _Unpickler(file).load()
    except _UnknownClass as error:
        raise ValueError(
            f"{path} names {error}, a class that is not known here and is not loaded. A version of megatron-core other "
            "than 0.13 to 0.20 may have written it: convert the checkpoint with that version"
        ) from None
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): use another checkpoint") from error
    if not isinstance(content, Metadata):
        raise ValueError(f"{path} is damaged (it holds a {type(content).__name__}): use another checkpoint")
    return content
