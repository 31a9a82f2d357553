"""Output tokens per second of the embedded server over HTTP, float64 and float32, sampling with top_p 0.95.

Also per CPU-second of the serving process, which other work on the machine disturbs less.

A 1M-parameter model (hidden 128, 4 layers, vocabulary 1,024), one thread. Peer, in the same run: transformers'
generate on the same weights with a static batch of the same size, one thread, no HTTP.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from nemo_ext.serving.address import Endpoint, wait_for
from nemo_ext.serving.client import complete
from nemo_ext.serving.client_config import ClientConfig
from nemo_ext.serving.requests import Completion, Request, Sampling
from tests.nemo_ext.serving.tiny_checkpoint import make_checkpoint

NEW_TOKENS = 200
PROMPT = "Nadia has 12 coins and buys 7 more. How many now? " * 3
SIZE = {
    "hidden_size": 128, "num_layers": 4, "num_heads": 4, "num_kv_heads": 2, "head_dim": 32,
    "intermediate_size": 384, "vocab_size": 1024, "context_length": 1024,
}  # fmt: skip


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_checkpoint(Path(folder) / "model", **SIZE)  # type: ignore[arg-type]
        peers = {count: _transformers(checkpoint, count) for count in (1, 32, 128)}
        for dtype in ("float64", "float32"):
            with _server(Path(folder), checkpoint, dtype) as (endpoint, process):
                _ours(endpoint, process, 8)
                for count, (peer_wall, peer_cpu) in peers.items():
                    wall, cpu = _ours(endpoint, process, count)
                    yield _row(f"embedded {dtype} {count} in flight", wall, "tokens/s", peer_wall)
                    yield _row(f"embedded {dtype} {count} in flight", cpu, "tokens/cpu-s", peer_cpu)


def _row(name: str, value: float, unit: str, peer: float) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "target": None, "peer": peer, "ratio": value / peer}


@contextmanager
def _server(folder: Path, checkpoint: Path, dtype: str) -> Iterator[tuple[Endpoint, psutil.Process]]:
    config, address = folder / f"{dtype}.yaml", folder / f"{dtype}.json"
    server = {"kind": "embedded", "compute_dtype": dtype, "max_batch_size": 128}
    model = {"name": "tiny", "hf_path": str(checkpoint), "context_length": SIZE["context_length"]}
    config.write_text(json.dumps({"server": server, "model": model}))
    argv = [sys.executable, "-m", "nemo_ext.serving.serve", str(config), "--address-file", str(address)]
    process = subprocess.Popen(argv)
    try:
        yield wait_for([address], 60)[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _ours(endpoint: Endpoint, process: psutil.Process, in_flight: int) -> tuple[float, float]:
    """Twice as many requests as fit, so that slots are refilled as in a long run."""
    requests = [
        Request(str(i), f"{i}. {PROMPT}", Sampling(1.0, 0.95, 0, NEW_TOKENS, (), i)) for i in range(2 * in_flight)
    ]
    completions: list[Completion] = []
    before = sum(process.cpu_times()[:2])
    stats = complete(requests, [replace(endpoint, concurrency=in_flight)], ClientConfig(), completions.append)
    assert stats.errors == 0, completions[0].error
    return stats.generated_tokens / stats.seconds, stats.generated_tokens / (sum(process.cpu_times()[:2]) - before)


@torch.inference_mode()
def _transformers(checkpoint: Path, batch: int) -> tuple[float, float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = LlamaForCausalLM.from_pretrained(checkpoint)
    ids = torch.tensor([AutoTokenizer.from_pretrained(checkpoint)(PROMPT)["input_ids"]] * batch)
    options = {"do_sample": True, "top_p": 0.95, "top_k": 0, "pad_token_id": 0, "min_new_tokens": NEW_TOKENS}
    model.generate(ids[:1], max_new_tokens=2, do_sample=True, pad_token_id=0)
    started, cpu_started = time.perf_counter(), time.process_time()
    output = model.generate(ids, max_new_tokens=NEW_TOKENS, **options)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    torch.set_num_threads(threads)
    tokens = (output.shape[1] - ids.shape[1]) * batch
    return tokens / seconds, tokens / cpu_seconds
