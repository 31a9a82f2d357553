"""Merging two models of half a GB each with their base: time and peak memory of each method, against mergekit in the same run.

Both read from the page cache, where the folders have just been written. mergekit works on whole tensors, ours on rows.
"""

import importlib.util
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from nemo_ext.megatron.weights.mapping import mapping_of
from nemo_ext.models.safetensors_file import write_safetensors
from nemo_ext.models.shape import ModelShape
from tests.nemo_ext.megatron.checkpoints import save_shape

ROOT = Path(__file__).resolve().parent.parent.parent
SHAPE = ModelShape(
    num_layers=4, hidden_size=2048, ffn_size=8192, num_heads=16, num_kv_heads=4, head_dim=128, vocab_size=8000,
    max_positions=64, rope_theta=1e4, rope_scaling=None, norm_eps=1e-6, tied_embeddings=False,
)  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {
    "linear": {"kind": "linear"},
    "slerp": {"kind": "slerp"},
    "ties": {"kind": "ties", "density": 0.2},
}
PEAK = 'int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024'
OURS = f"""
import json, re, sys, time
from pathlib import Path
from nemo_ext.megatron.merging.merge import merge_to_hf
from nemo_ext.megatron.merging.method import load
from nemo_ext.megatron.merging.sources import FolderSource
mapping, (base, *models, out) = json.loads(sys.argv[1]), map(Path, sys.argv[2:])
method, started = load(mapping), time.perf_counter()
source = FolderSource(base) if method.of_differences else None
merge_to_hf([FolderSource(each) for each in models], source, [1.0] * len(models), method, base, out, "bf16", {{}})
print(json.dumps({{"seconds": time.perf_counter() - started, "peak_mb": {PEAK}}}))
"""
THEIRS = f"""
import json, re, sys, time
from pathlib import Path
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
mapping, (base, *models, out) = json.loads(sys.argv[1]), sys.argv[2:]
entries = [{{"model": each, "parameters": {{"weight": 1.0, "density": mapping.get("density", 1.0)}}}} for each in models]
config = {{"merge_method": mapping["kind"], "dtype": "bfloat16", "models": entries}}
if mapping["kind"] == "slerp":
    config |= {{"parameters": {{"t": 0.5}}, "base_model": models[0], "models": [{{"model": each}} for each in models]}}
if mapping["kind"] == "ties":
    config |= {{"base_model": base}}
if mapping["kind"] == "linear":
    config["models"] = [{{"model": each, "parameters": {{"weight": 1.0}}}} for each in models]
started = time.perf_counter()
run_merge(MergeConfiguration.model_validate(config), out, options=MergeOptions(copy_tokenizer=False, cuda=False, quiet=True))
print(json.dumps({{"seconds": time.perf_counter() - started, "peak_mb": {PEAK}}}))
"""


def measured(program: str, mapping: dict[str, Any], folders: list[Path], out: Path) -> dict[str, float]:
    arguments = [sys.executable, "-c", program, json.dumps(mapping), *map(str, [*folders, out])]
    said = subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    shutil.rmtree(out)
    found: dict[str, float] = json.loads(said.strip().splitlines()[-1])
    return found


def write_weights(folder: Path, seed: int) -> Path:
    """A model with random weights in bf16."""
    save_shape(folder, SHAPE)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))  # mergekit asks
    sizes = {piece.name: piece.size for piece in mapping_of(SHAPE).pieces(SHAPE)}
    generator = torch.Generator().manual_seed(seed)
    parts = (torch.randn(math.prod(sizes[name]), generator=generator).bfloat16() for name in sorted(sizes))
    write_safetensors(folder / "model.safetensors", sizes, torch.bfloat16, parts)
    return folder


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as root:
        folders = [write_weights(Path(root, name), seed) for seed, name in enumerate(("base", "first", "second"))]
        size = (folders[0] / "model.safetensors").stat().st_size / 1e9
        has_peer = importlib.util.find_spec("mergekit") is not None
        for name, mapping in METHODS.items():
            ours = measured(OURS, mapping, folders, Path(root, "ours"))
            theirs = measured(THEIRS, mapping, folders, Path(root, "theirs")) if has_peer else None
            yield {
                "name": f"merge_{name}",
                "value": round(ours["seconds"], 1),
                "unit": f"s for two models of {size:.2f} GB",
                "target": None,
                "peer": theirs and round(theirs["seconds"], 1),
                "ratio": theirs and round(theirs["seconds"] / ours["seconds"], 2),
            }
            yield {
                "name": f"merge_{name}_peak_memory",
                "value": round(ours["peak_mb"]),
                "unit": "MB, imports included",
                "target": 2000,
                "peer": theirs and round(theirs["peak_mb"]),
                "ratio": None,
            }
