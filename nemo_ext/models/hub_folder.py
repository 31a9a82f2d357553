"""A Hugging Face model folder's files: where its weights are, which tokens end an answer, which tokenizer class it names.

A base model's files name its end of text alone (Llama-3.1-8B: 128001), while the chat template it is fine-tuned with
closes an answer with another token (`<|eot_id|>`, 128009). Servers stop at what the files say: with the base's own, no
answer of the student would ever end. vLLM, SGLang and TensorRT-LLM read generation_config.json and config.json;
llama.cpp's converter and others the tokenizer.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo_ext.records.files import write_json_atomic

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
TOKENIZER_CONFIG, SPECIAL_TOKENS = "tokenizer_config.json", "special_tokens_map.json"
PORTABLE_CLASS = {"TokenizersBackend": "PreTrainedTokenizerFast"}
"""transformers 5's name for a plain tokenizer.json -> the one that transformers 4 and 5 both know."""
DEFAULT_THETA = 10000.0
"""Base of rotary embeddings where config.json names none."""
ROPE_NUMBERS: dict[str, tuple[str, ...]] = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""Kind of rotary scaling -> the numbers that config.json must give with it."""


@dataclass(frozen=True)
class AnswerEnd:
    """How a model is trained to end an answer."""

    ids: tuple[int, ...] = ()
    """Token ids; the one that closes a chat answer first."""
    end_of_turn: str | None = None
    """The text of the first id, where it may stand in for the tokenizer's eos_token."""


def end_token_ids(folder: Path) -> list[int]:
    """The ids at which a server stops: generation_config.json's, else config.json's; empty where neither names any."""
    for name in (GENERATION_CONFIG, CONFIG):
        named = read_json(folder / name).get("eos_token_id")
        if named is not None:
            return [named] if isinstance(named, int) else list(named)
    return []


def write_answer_end(folder: Path, end: AnswerEnd) -> None:
    """Name a trained answer's end in config.json, generation_config.json (made where there is none) and the tokenizer.
    Ids that the files name already stay, behind the trained ones."""
    ids = list(dict.fromkeys([*end.ids, *end_token_ids(folder)]))
    for name in (CONFIG, GENERATION_CONFIG):
        if ids:
            write_json_atomic(
                folder / name, read_json(folder / name) | {"eos_token_id": ids if len(ids) > 1 else ids[0]}
            )
    for name in (TOKENIZER_CONFIG, SPECIAL_TOKENS):
        if end.end_of_turn is not None and (folder / name).is_file():
            write_json_atomic(folder / name, read_json(folder / name) | {"eos_token": end.end_of_turn})


def name_portable_class(folder: Path) -> None:
    """Name the tokenizer's class so that transformers 4, which the serving images pin, opens the folder, too."""
    content = read_json(folder / TOKENIZER_CONFIG)
    name = content.get("tokenizer_class")
    if name in PORTABLE_CLASS:
        write_json_atomic(folder / TOKENIZER_CONFIG, content | {"tokenizer_class": PORTABLE_CLASS[name]})


def portable_config(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """config.json's content with this dtype of the weights, in the spelling that transformers 4 and 5 both read.

    5's own (`rope_parameters`, `dtype`) means nothing to 4, which then rotates by its default of theta 10,000 and says
    nothing; 4's (`rope_theta`, `rope_scaling`, `torch_dtype`) is read by both.
    """
    kept = {name: value for name, value in config.items() if name not in ("dtype", "rope_parameters")}
    rope = config.get("rope_parameters")
    if rope:
        scaling = {name: value for name, value in rope.items() if name != "rope_theta"}
        kept["rope_theta"] = rope.get("rope_theta", config.get("rope_theta", DEFAULT_THETA))
        kind = rope.get("rope_type") or rope.get("type") or "default"
        kept["rope_scaling"] = None if kind == "default" else scaling
    return kept | {"torch_dtype": dtype}


def check_rope_spelling(folder: Path, transformers: str | None) -> None:
    """Whether this version of transformers (None: not known) rotates as config.json says.

    Raises:
        ValueError: it is written as transformers 5 has it, which 4 passes over: it would take its default and say nothing.
    """
    config = read_json(folder / CONFIG)
    rope = config.get("rope_parameters")
    if not rope or (transformers is not None and int(transformers.partition(".")[0]) >= 5):
        return
    portable = portable_config(config, "")
    meant = {name: portable[name] for name in ("rope_theta", "rope_scaling")}
    read = {"rope_theta": config.get("rope_theta", DEFAULT_THETA), "rope_scaling": config.get("rope_scaling")}
    by_layer = any(isinstance(value, dict) for value in rope.values())
    if meant == read and not by_layer:
        return
    here = f"transformers {transformers}" if transformers else "a transformers of unknown version"
    if by_layer:
        way_on = (
            "It has one for each kind of layer, which 4 cannot read: serve it from an image that has transformers 5"
        )
    else:
        way_on = (
            f"In a copy of the folder write {json.dumps(meant)[1:-1]} in place of rope_parameters, which 4 and 5 both "
            "read; or serve it from an image that has transformers 5"
        )
    raise ValueError(
        f"{folder / CONFIG}: its rope_parameters are how transformers 5 writes them, and the server's image has {here}, "
        f"which may read theta {read['rope_theta']:,.0f} instead and say nothing. {way_on}"
    )


def not_tied(folder: Path, output: str, embedding: str) -> ValueError:
    """The error for an output layer of other values than the embedding it is tied to: transformers does not tie these,
    whatever config.json says."""
    return ValueError(
        f"{folder}: config.json says tie_word_embeddings=true, but {output} differs from {embedding}. Set it to false where "
        "both are meant, or leave the tensor out"
    )


def weight_map(folder: Path) -> dict[str, str] | None:
    """Tensor name -> file of this folder, as its index says; None: it has no index.

    Raises:
        ValueError: the index names a file outside of the folder, or is not an index.
    """
    content = read_json(folder / INDEX)
    if not content:
        return None
    files = content.get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ValueError(f"{folder / INDEX}: it has no weight_map: take it from the model's original folder again")
    outside = sorted({str(file) for file in files.values() if Path(str(file)).name != file})
    if outside:
        raise ValueError(f"{folder / INDEX} names {outside[0]!r}: weights must be files of the same folder")
    return files


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the weights: those that the index names, else model.safetensors.

    Raises:
        ValueError: there is neither.
    """
    files = weight_map(folder)
    if files is not None:
        return [folder / file for file in sorted(set(files.values()))]
    if not (folder / SINGLE).is_file():
        raise ValueError(f"{folder} has neither {SINGLE} nor {INDEX}: only safetensors weights are read")
    return [folder / SINGLE]


def check_rope(path: Path, kind: str, rope: dict[str, Any]) -> None:
    """Raises ValueError when a config.json asks for a scaling without its numbers."""
    missing = [key for key in ROPE_NUMBERS.get(kind, ()) if rope.get(key) is None]
    if missing:
        raise ValueError(f"{path}: rope_type={kind!r} needs {', '.join(missing)}, which it does not give")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no file.

    Raises:
        ValueError: naming the file, when it holds no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path}: not JSON ({error}): take the file from the model's original folder again"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: it must be a JSON object; it is {type(content).__name__}")
    return content
