"""Hugging Face checkpoints as a source of Megatron weights: each rank reads only the slices it keeps."""

import hashlib
import json
import logging
from pathlib import Path

import torch
from safetensors import safe_open

from nemo_ext.megatron.mapping import Source, canonical_name, megatron_shard
from nemo_ext.megatron.shape import ModelShape

__all__ = ["ModelShape", "RandomSource", "SafetensorsSource", "load_weights", "local_folder"]
logger = logging.getLogger(__name__)

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def local_folder(hf_path: str) -> Path:
    """The folder of a checkpoint: `hf_path` itself, or the local copy of a hub id (fetched once, by the hub client).

    Raises:
        ValueError: neither a folder nor a hub id.
    """
    path = Path(hf_path).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or hf_path.count("/") != 1:
        raise ValueError(f"hf_path={hf_path!r}: no such folder, and not a hub id of the form owner/name")
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(hf_path, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model"]))


class SafetensorsSource:
    """The tensors of `model.safetensors`, or of the shards that `model.safetensors.index.json` lists."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError when the folder holds neither file."""
        self.folder = folder
        index = folder / INDEX
        if index.is_file():
            self.files: dict[str, str] = json.loads(index.read_text())["weight_map"]
        elif (folder / SINGLE).is_file():
            with safe_open(folder / SINGLE, framework="pt") as handle:
                self.files = dict.fromkeys(handle.keys(), SINGLE)
        else:
            raise ValueError(f"{folder} has neither {SINGLE} nor {INDEX}: only safetensors weights are read")

    def read(
        self, name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None
    ) -> torch.Tensor:
        """A slice of one tensor in its stored dtype.

        Raises:
            ValueError: no tensor of that name, with the first few there are.
        """
        if name not in self.files:
            some = ", ".join(sorted(self.files)[:3])
            raise ValueError(f"{self.folder} has no tensor {name!r} (it has {len(self.files)}: {some}, ...)")
        with safe_open(self.folder / self.files[name], framework="pt") as handle:
            if rows is None and columns is None:
                return handle.get_tensor(name)
            view = handle.get_slice(name)
            return view[slice(*(rows or (None,))), slice(*columns)] if columns else view[slice(*(rows or (None,)))]


class RandomSource:
    """Fresh weights in Hugging Face's form: norms 1, the rest normal with the config's initializer_range.

    Each tensor is a function of (seed, its name), so every topology starts from the same model.
    """

    def __init__(self, shape: ModelShape, seed: int) -> None:
        self.shape, self.seed = shape, seed

    def read(
        self, name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None
    ) -> torch.Tensor:
        size = self._size(name)
        if len(size) == 1:
            return torch.ones(size)
        digest = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        tensor = torch.empty(size).normal_(0.0, self.shape.init_std, generator=generator)
        return tensor[slice(*(rows or (None,))), slice(*(columns or (None,)))]

    def _size(self, name: str) -> tuple[int, ...]:
        shape = self.shape
        queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
        sizes = {
            "q_proj": (queries, shape.hidden_size),
            "k_proj": (keys, shape.hidden_size),
            "v_proj": (keys, shape.hidden_size),
            "o_proj": (shape.hidden_size, queries),
            "gate_proj": (shape.ffn_size, shape.hidden_size),
            "up_proj": (shape.ffn_size, shape.hidden_size),
            "down_proj": (shape.hidden_size, shape.ffn_size),
            "embed_tokens": (shape.vocab_size, shape.hidden_size),
            "lm_head": (shape.vocab_size, shape.hidden_size),
        }
        return sizes.get(name.split(".")[-2], (shape.hidden_size,))


def load_weights(
    model: torch.nn.Module,
    source: Source,
    shape: ModelShape,
    layer_offset: int,
    rank: int,
    size: int,
    padded_vocab: int,
) -> None:
    """Fill this rank's GPTModel in place, before the optimizer copies its fp32 weights from it.

    `layer_offset` is the global index of the pipeline stage's first layer; `rank` of `size` is tensor parallel.
    Weights are converted to the parameter's dtype.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            key, layer = canonical_name(name, layer_offset)
            value = megatron_shard(key, layer, source, shape, rank, size, padded_vocab)
            assert value.shape == parameter.shape, f"{name}: {tuple(value.shape)} for {tuple(parameter.shape)}"
            parameter.copy_(value)
    logger.info("loaded %d tensors from %s", len(list(model.parameters())), type(source).__name__)
