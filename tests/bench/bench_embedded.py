"""Output tokens of the embedded server per second and per CPU-second of its process, which other work on the machine
disturbs less.

A 3.5M-parameter model (hidden 256, 4 layers, vocabulary 2,048, tied), one thread, chat requests of about 52 tokens, 200 new
tokens, temperature 0.8; random weights, so that its distributions are flat, which is the slow case for sampling. Peer,
in the same run: transformers' generate on the same weights, a static batch of the same size, one thread, no HTTP.
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
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from nemo_ext.serving.address import Endpoint, wait_for
from nemo_ext.serving.client.client import complete
from nemo_ext.serving.client.config import ClientConfig
from nemo_ext.serving.client.requests import Completion, Request, Sampling
from tests.conftest import ROOT
from tests.nemo_ext.serving.tiny_checkpoint import CHAT_TEMPLATE, DEFAULT_ROPE, make_tokenizer

NEW_TOKENS = 200
TARGET = 3000  # tokens per CPU-second, 128 in flight, as configured by default
CONTEXT = 1024
PROBLEM = "Nadia has {} coins and buys 7 more. Then she gives 5 of them to Bo. How many coins does she have now? Show your work."


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = _checkpoint(Path(folder) / "model")
        peers = {count: _transformers(checkpoint, count) for count in (1, 32, 128)}
        for name, options in (("default", {}), ("float64", {"compute_dtype": "float64"})):
            with _server(Path(folder), checkpoint, name, options) as (endpoint, process):
                _ours(endpoint, process, 8)
                for count, (peer_wall, peer_cpu) in peers.items():
                    wall, cpu = _ours(endpoint, process, count)
                    target = TARGET if count == 128 and name == "default" else None
                    yield _row(f"embedded {name} {count} in flight", wall, "tokens/s", peer_wall)
                    yield _row(f"embedded {name} {count} in flight", cpu, "tokens/cpu-s", peer_cpu, target)
                yield _row(f"embedded {name} seeded alone = among 128", _equal_under_load(endpoint), "of 20", 20, 20)


def _checkpoint(folder: Path) -> Path:
    texts = [path.read_text() for path in sorted((ROOT / "nemo_ext").rglob("*.py"))]
    tokenizer = make_tokenizer(400).train_new_from_iterator(texts, vocab_size=2048)
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, head_dim=32, max_position_embeddings=CONTEXT, rope_parameters=DEFAULT_ROPE,
        tie_word_embeddings=True, initializer_range=0.1, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _row(name: str, value: float, unit: str, peer: float, target: float | None = None) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "target": target, "peer": peer, "ratio": value / peer}


@contextmanager
def _server(
    folder: Path, checkpoint: Path, name: str, options: dict[str, Any]
) -> Iterator[tuple[Endpoint, psutil.Process]]:
    config, address = folder / f"{name}.yaml", folder / f"{name}.json"
    server = {"kind": "embedded", **options}
    model = {"name": "tiny", "hf_path": str(checkpoint), "context_length": CONTEXT}
    config.write_text(json.dumps({"server": server, "model": model}))
    argv = [sys.executable, "-m", "nemo_ext.serving.serve", str(config), "--address-file", str(address)]
    process = subprocess.Popen(argv)
    try:
        yield wait_for([address], 60)[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": PROBLEM.format(number)}]


def _ours(endpoint: Endpoint, process: psutil.Process, in_flight: int) -> tuple[float, float]:
    """Twice as many requests as fit, so that slots are refilled as in a long run."""
    requests = [Request(str(i), _messages(i), Sampling(0.8, 1.0, 0, NEW_TOKENS, (), i)) for i in range(2 * in_flight)]
    completions: list[Completion] = []
    before = sum(process.cpu_times()[:2])
    stats = complete(requests, [replace(endpoint, concurrency=in_flight)], ClientConfig(), completions.extend)
    assert stats.errors == 0, completions[0].error
    return stats.generated_tokens / stats.seconds, stats.generated_tokens / (sum(process.cpu_times()[:2]) - before)


def _equal_under_load(endpoint: Endpoint) -> int:
    """How many of 20 seeded completions are the same one by one and among 108 others, to the letter."""
    requests = [Request(str(i), _messages(i), Sampling(0.8, 1.0, 0, NEW_TOKENS, (), i)) for i in range(20)]
    others = [
        Request(str(i), _messages(i) * (1 + i % 5), Sampling(1.0, 0.95, 0, 10 + i, (), None)) for i in range(20, 128)
    ]
    alone: dict[str, str] = {}
    crowded: dict[str, str] = {}
    for found, asked, in_flight in ((alone, requests, 1), (crowded, requests + others, 128)):
        answered: list[Completion] = []
        complete(asked, [replace(endpoint, concurrency=in_flight)], ClientConfig(), answered.extend)
        found.update({completion.key: completion.text for completion in answered})
    return sum(alone[request.key] == crowded[request.key] for request in requests)


@torch.inference_mode()
def _transformers(checkpoint: Path, batch: int) -> tuple[float, float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = LlamaForCausalLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    prompt = tokenizer.apply_chat_template(_messages(100), add_generation_prompt=True, return_dict=True)["input_ids"]
    ids = torch.tensor([prompt] * batch)
    options = {
        "do_sample": True,
        "temperature": 0.8,
        "top_p": 1.0,
        "top_k": 0,
        "pad_token_id": 0,
        "min_new_tokens": NEW_TOKENS,
    }
    model.generate(ids[:1], max_new_tokens=2, do_sample=True, pad_token_id=0)
    started, cpu_started = time.perf_counter(), time.process_time()
    output = model.generate(ids, max_new_tokens=NEW_TOKENS, **options)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    torch.set_num_threads(threads)
    tokens = (output.shape[1] - ids.shape[1]) * batch
    return tokens / seconds, tokens / cpu_seconds
