"""Hugging Face checkpoints as a source of Megatron weights: each rank reads only the slices it keeps."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from nemo_ext.megatron.weights.mapping import EMBEDDING, OUTPUT, Source, mapping_of
from nemo_ext.models.head import SCORE
from nemo_ext.models.hub_folder import INDEX, SINGLE, not_tied, weight_files, weight_map
from nemo_ext.models.safetensors_file import read_header
from nemo_ext.models.shape import ModelShape

__all__ = ["ModelShape", "RandomSource", "SafetensorsSource", "first_weights", "load_weights", "local_folder"]
logger = logging.getLogger(__name__)

DERIVED = (".rotary_emb.inv_freq",)
"""Ends of the names of tensors that old checkpoints hold although the config determines them."""


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

    return Path(snapshot_download(hf_path, allow_patterns=["*.json", "model*.safetensors", "*.jinja", "*.model"]))


class SafetensorsSource:
    """The tensors of `model.safetensors`, or of the shards that `model.safetensors.index.json` lists."""

    def __init__(self, folder: Path) -> None:
        """Reads every file's header and checks it against the folder's config.json, before anything is loaded.

        Raises:
            ValueError: neither file is there, a file is missing or cut short, or a tensor is missing, of another size
            than the config says, or of no use to the model; or an output layer that differs from the embedding it is
            tied to.
        """
        self.folder = folder
        self.files, sizes = _read_headers(folder)
        _check_sizes(folder, ModelShape.from_hf(folder), self.files, sizes)
        self._open: dict[str, Any] = {}
        self._check_tied()

    def _check_tied(self) -> None:
        """transformers does not tie an output layer that differs from the embedding, whatever the config says."""
        shape = ModelShape.from_hf(self.folder)
        embedding, output = (shape.family.outer[key] for key in (EMBEDDING, OUTPUT))
        if not (shape.tied_embeddings and output in self.files):
            return
        if not torch.equal(self.read(embedding), self.read(output)):
            raise not_tied(self.folder, output, embedding)

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
        file = self.files[name]
        if file not in self._open:
            self._open[file] = safe_open(self.folder / file, framework="pt")
        if rows is None and columns is None:
            return self._open[file].get_tensor(name)
        view = self._open[file].get_slice(name)
        return view[slice(*(rows or (None,))), slice(*columns)] if columns else view[slice(*(rows or (None,)))]


def _read_headers(folder: Path) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
    """File and size of each tensor."""
    headers = {path.name: read_header(path) for path in weight_files(folder)}
    files = weight_map(folder) or dict.fromkeys(headers[SINGLE], SINGLE)
    for name, file in files.items():
        if name not in headers[file]:
            raise ValueError(f"{folder / file} has no tensor {name}, which {INDEX} says is there")
    return files, {name: headers[file][name] for name, file in files.items()}


def _check_sizes(folder: Path, shape: ModelShape, files: dict[str, str], sizes: dict[str, tuple[int, ...]]) -> None:
    expected = {piece.name: piece.size for piece in mapping_of(shape).pieces(shape)}
    for name, size in expected.items():
        if name not in sizes:
            raise ValueError(f"{folder} has no tensor {name}, which its config.json asks for")
        if sizes[name] != size:
            raise ValueError(f"{folder / files[name]}: {name} is {sizes[name]}, but config.json makes it {size}")
    tied = {shape.family.outer[OUTPUT]} if shape.tied_embeddings else set()  # some checkpoints repeat the embedding
    unknown = sorted(n for n in sizes.keys() - expected.keys() - tied if not n.endswith(DERIVED))
    if unknown:
        raise ValueError(f"{folder / files[unknown[0]]}: {unknown[0]} has no place in a {shape.model_type} model")


class NewHeadSource:
    """A causal model's weights, and fresh ones of the head that `shape` has and the model has not."""

    def __init__(self, body: Source, shape: ModelShape, seed: int) -> None:
        self.body, self.head = body, RandomSource(shape, seed)
        self.name = shape.family.outer[SCORE]

    def read(
        self, name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None
    ) -> torch.Tensor:
        return (self.head if name == self.name else self.body).read(name, rows, columns)


def first_weights(folder: Path, shape: ModelShape, init: str, seed: int) -> Source:
    """Where a training's first weights come from: `init` and `seed` as in its settings. `shape` has the head that is
    trained, which is fresh where the folder's model has another."""
    if init == "random":
        return RandomSource(shape, seed)
    body = SafetensorsSource(folder)
    return body if shape.head == ModelShape.from_hf(folder).head else NewHeadSource(body, shape, seed)


class RandomSource:
    """Fresh weights in Hugging Face's form: norms 1, biases 0, the rest normal with the config's initializer_range.

    Each tensor is a function of (seed, its name), so every topology starts from the same model.
    """

    def __init__(self, shape: ModelShape, seed: int) -> None:
        self.shape, self.seed = shape, seed
        self.sizes = {piece.name: piece.size for piece in mapping_of(shape).pieces(shape)}

    def read(
        self, name: str, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None
    ) -> torch.Tensor:
        size = self.sizes[name]
        kept = slice(*(rows or (None,)))
        if len(size) == 1:
            return torch.full(size, 0.0 if name.endswith(".bias") else 1.0)[kept]
        digest = hashlib.sha256(f"{self.seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        tensor = torch.empty(size).normal_(0.0, self.shape.init_std, generator=generator)
        return tensor[kept, slice(*(columns or (None,)))]


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
    mapping = mapping_of(shape)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            key, layer = mapping.canonical_name(name, layer_offset)
            value = mapping.shard(key, layer, source, shape, rank, size, padded_vocab)
            assert value.shape == parameter.shape, f"{name}: {tuple(value.shape)} for {tuple(parameter.shape)}"
            parameter.copy_(value)
    logger.info("loaded %d tensors from %s", len(list(model.parameters())), type(source).__name__)
