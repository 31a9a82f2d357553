"""Tokens per second of training on two CPU cores, against plain transformers + torch on the same model and samples.

Ours: DP2, the distributed optimizer, packed steps. The peer, twice: DDP over two gloo processes, and one process with
two threads, both with transformers' Llama, torch's fused-loop AdamW and each micro-batch padded to its longest sample,
sorted by length within the step, which is the kindest a plain loop is to itself; the faster of the two is the peer.
Tokens are the samples', not the padding's. Run in turn, twice each, the best of each taken.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.nemo_ext.megatron.ranks import ROOT, join_ranks, run_ranks, start_ranks

MODEL = ROOT / "nemo_ext" / "serving" / "embedded" / "models" / "tiny_base"
STEPS, WARM_UP, GLOBAL_BATCH_SIZE, MICRO_BATCH_SIZE, LR = 12, 2, 64, 16, 1e-3
PROGRAM = "tests.bench.bench_train"
ROUNDS = 2


def write_data(folder: Path) -> None:
    """1,000 samples of random tokens, 116 on average, the last 40 % trained."""
    from nemo_ext.megatron.data.token_folder import PackedDataWriter

    rng = np.random.default_rng(0)
    with PackedDataWriter(folder, {}) as writer:
        for length in rng.lognormal(4.6, 0.5, 1000).clip(8, 512).astype(int).tolist():
            prompt = length * 6 // 10
            writer.add(rng.integers(0, 1024, length).tolist(), [0] * prompt + [1] * (length - prompt))


def ours(argument: dict[str, Any]) -> float:
    """Tokens per second of the steps after the warm-up."""
    from nemo_ext.megatron.data.token_folder import PackedData
    from nemo_ext.megatron.record.metrics import read_metrics
    from nemo_ext.megatron.settings import TrainSettings
    from nemo_ext.megatron.train import train
    from nemo_ext.models.model import Model
    from nemo_ext.records.progress import Progress

    settings = TrainSettings(
        data_parallel_size=2,
        precision="fp32",
        global_batch_size=GLOBAL_BATCH_SIZE,
        seq_length=512,
        pack_length=2560,
        train_iters=STEPS,
        lr=LR,
        tensorboard=False,
    )
    output = Path(argument["output"])
    output.mkdir(parents=True, exist_ok=True)
    model = Model(name="tiny_base", hf_path=str(MODEL), context_length=512)
    train(settings, model, PackedData.open(Path(argument["data"])), None, output, Progress(output, "steps"))
    lines = [line for line in read_metrics(output / "metrics.jsonl") if "num_tokens" in line][WARM_UP:]
    return sum(line["num_tokens"] for line in lines) / sum(line["seconds"] for line in lines)


def plain(argument: dict[str, Any]) -> float:
    """The same of the plain loop, over as many processes as were started."""
    import torch
    import torch.distributed as dist
    from transformers import AutoModelForCausalLM

    from nemo_ext.megatron.data.batches import Batches
    from nemo_ext.megatron.data.token_folder import PackedData

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(2 // size)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    if size > 1:
        dist.init_process_group("gloo")
        model = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.98), foreach=True)
    data = PackedData.open(Path(argument["data"]))
    batches = Batches(data, GLOBAL_BATCH_SIZE, 2560, 1234)
    tokens = seconds = 0.0
    for step in range(STEPS):
        started = time.perf_counter()
        samples = sorted(batches.samples(step), key=lambda i: int(data.lengths[i]))
        _plain_step(model, optimizer, data, samples[rank::size])
        if step >= WARM_UP:
            seconds += time.perf_counter() - started
            tokens += sum(int(data.lengths[i]) for i in samples)
    if size > 1:
        dist.destroy_process_group()
    return tokens / seconds


def _plain_step(model: Any, optimizer: Any, data: Any, samples: list[int]) -> None:
    from torch.nn.functional import cross_entropy

    groups = [samples[i : i + MICRO_BATCH_SIZE] for i in range(0, len(samples), MICRO_BATCH_SIZE)]
    for number, group in enumerate(groups):
        tokens, mask, labels = _padded(data, group)
        if hasattr(model, "require_backward_grad_sync"):
            model.require_backward_grad_sync = number == len(groups) - 1
        logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        (loss / len(groups)).backward()
    optimizer.step()
    optimizer.zero_grad()


def _padded(data: Any, group: list[int]) -> tuple[Any, Any, Any]:
    import torch

    longest = max(int(data.lengths[i]) for i in group)
    tokens, mask = (torch.zeros(len(group), longest, dtype=torch.int64) for _ in range(2))
    labels = torch.full((len(group), longest), -100)
    for row, index in enumerate(group):
        ids, trained = (torch.from_numpy(part.astype(np.int64)) for part in data.sample(index))
        tokens[row, : len(ids)], mask[row, : len(ids)] = ids, 1
        labels[row, : len(ids)] = torch.where(trained == 1, ids, -100)
    return tokens, mask, labels


def import_seconds() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import nemo_ext.megatron.train"], cwd=ROOT, check=True)
    return time.perf_counter() - started


def first_step_seconds(argument: dict[str, Any]) -> float:
    """From starting the processes to the first line of a step in metrics.jsonl."""
    path = Path(argument["output"]) / "metrics.jsonl"
    started = time.perf_counter()
    processes = start_ranks(2, PROGRAM, "ours", argument)
    while not (path.is_file() and b'"num_tokens"' in path.read_bytes()):
        assert all(process.poll() in (None, 0) for process in processes), "a rank failed"
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    join_ranks(processes)
    return seconds


def run() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        write_data(data)
        rates: dict[str, list[float]] = {"ours": [], "ddp": [], "threads": []}
        for number in range(ROUNDS):
            argument = {"data": str(data), "output": f"{scratch}/run_{number}"}
            rates["ours"].append(run_ranks(2, PROGRAM, "ours", argument)[0])
            rates["ddp"].append(run_ranks(2, PROGRAM, "plain", argument)[0])
            rates["threads"].append(run_ranks(1, PROGRAM, "plain", argument)[0])
        best = {name: max(values) for name, values in rates.items()}
        peer = max("ddp", "threads", key=best.__getitem__)
        names = {"ddp": "transformers + DDP, 2 processes", "threads": "transformers, 2 threads"}
        yield {
            "name": "train_dp2_tokens_per_second",
            "value": round(best["ours"]),
            "unit": "tokens/s",
            "target": "1x",
            "peer": f"{names[peer]}: {best[peer]:,.0f} tokens/s",
            "ratio": round(best["ours"] / best[peer], 3),
        }
        first = first_step_seconds({"data": str(data), "output": f"{scratch}/first"})
        yield {"name": "train_start_to_first_step", "value": round(first, 2), "unit": "s", "target": 15}
    yield {"name": "train_import", "value": round(import_seconds(), 2), "unit": "s", "target": 6}
