"""Print what every GPU preset of conf/server holds of its models: `python -m launchers.sizing [preset ...]`.

The lines are those in the presets' comments, which name the models (tests/launchers/test_fit_serving.py compares them):
    llama31_405b_instruct on h100: 47.7 GiB of weights, 5.9 of buffers, 22.9 of cache for 761,834 tokens; sequences: 214 of
    3,548 tokens, ...
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from launchers.estimates.fit_serving import PROMPT_TOKENS
from launchers.planning.resolvers import CONF, register
from nemo_ext.machine.gpus import gpu_named
from nemo_ext.models.model import Model
from nemo_ext.serving.memory import serving_memory, shape_for
from nemo_ext.serving.server import GpuServer, load

COMMENT = re.compile(r"^#   (\w+) on (\w+): ", re.MULTILINE)
COMPLETIONS = (2048, 4096)
"""max_tokens of synthesis and of evaluation."""


def preset(name: str) -> GpuServer:
    server = load(_mapping(CONF / "server" / f"{name}.yaml"))
    assert isinstance(server, GpuServer), f"conf/server/{name}.yaml needs no GPUs"
    return server


def model_named(name: str) -> Model:
    return Model(**_mapping(CONF / "model" / f"{name}.yaml"))


def _mapping(path: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    assert isinstance(content, dict), f"{path} is a mapping"
    return {str(key): value for key, value in content.items()}


def pairs(name: str) -> list[tuple[str, str]]:
    """(model, kind of GPU) that a preset's comment names."""
    return COMMENT.findall((CONF / "server" / f"{name}.yaml").read_text())


def row(server: GpuServer, model_name: str, gpu_name: str) -> str:
    """Raises ValueError for a model whose shape is not known."""
    model, gpu = model_named(model_name), gpu_named(gpu_name)
    shape = shape_for(model)
    if shape is None:
        raise ValueError(f"the shape of {model.hf_path} is not known")
    memory = serving_memory(shape, model, server, gpu.memory_gib)
    longest = server.sequence_length(model)
    lengths = [length for tokens in COMPLETIONS if (length := PROMPT_TOKENS + tokens) < longest]
    tokens = "" if memory.kv_tokens is None else f" for {memory.kv_tokens:,} tokens"
    held = ", ".join(f"{memory.sequences(length):,} of {length:,}" for length in [*lengths, longest])
    return (
        f"{model_name} on {gpu_name}: {memory.weights_gib:.1f} GiB of weights, {memory.buffers_gib:.1f} of buffers, "
        f"{memory.kv_gib:.1f} of cache{tokens}; sequences: {held}"
    )


def main(names: list[str]) -> int:
    register()
    presets = {path.stem: pairs(path.stem) for path in sorted((CONF / "server").glob("*.yaml"))}
    sized = [name for name, named in presets.items() if named]
    if unknown := sorted(set(names) - set(sized)):
        print(f"error: no figures for {', '.join(unknown)}; there are for: {', '.join(sized)}", file=sys.stderr)
        return 2
    try:
        for name in names or sized:
            for model_name, gpu_name in presets[name]:
                print(f"{name:<18} {row(preset(name), model_name, gpu_name)}")
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
