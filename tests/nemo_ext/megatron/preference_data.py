"""Token folders of pairs, of labelled and of rated samples, with the log-probabilities of a reference model."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from nemo_ext.megatron.data.token_folder import PackedDataWriter

NUM_RATINGS = 3
ATTRIBUTES = [f"a{number}" for number in range(NUM_RATINGS)]
NO_RATING = -100.0


def ids(rng: np.random.Generator, shortest: int = 2, longest: int = 14) -> list[int]:
    """Without 0, which is padding to some that these are compared with."""
    return rng.integers(1, 250, int(rng.integers(shortest, longest + 1))).tolist()


def random_pairs(number: int, seed: int = 5) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"prompt": ids(rng, 2, 20), "chosen": ids(rng), "rejected": ids(rng)} for _ in range(number)]


def random_labels(number: int, seed: int = 6) -> list[dict[str, Any]]:
    """Each with the answer to the next one's prompt, as `mismatched`."""
    rng = np.random.default_rng(seed)
    found = [
        {"prompt": ids(rng, 2, 20), "answer": ids(rng), "desirable": bool(rng.integers(2))} for _ in range(number)
    ]
    return [row | {"mismatched": found[(i + 1) % number]["answer"]} for i, row in enumerate(found)]


def logprob(model: LlamaForCausalLM, prompt: list[int], answer: list[int]) -> float:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return -float(cross_entropy(logits, torch.tensor(answer), reduction="sum"))


def save_pairs(folder: Path, pairs: list[dict[str, Any]], reference: Path, units: str = "pairs") -> Path:
    """With rewards, strengths and ratings besides, some of which are missing."""
    rng, model = np.random.default_rng(7), AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32)
    facts = {"units": units, "attributes": ATTRIBUTES}
    with PackedDataWriter(folder, facts, ("reference_logprob", "reward", "strength", "attributes")) as writer:
        for pair in pairs:
            strength = float(rng.integers(1, 4))
            for answer in (pair["chosen"], pair["rejected"]):
                ratings = np.where(rng.random(NUM_RATINGS) < 0.3, NO_RATING, rng.normal(size=NUM_RATINGS)).tolist()
                values = {"reward": float(rng.normal()), "strength": strength, "attributes": ratings}
                values["reference_logprob"] = logprob(model, pair["prompt"], answer)
                writer.add(pair["prompt"] + answer, [0] * len(pair["prompt"]) + [1] * len(answer), values)
    return folder


def save_labels(folder: Path, rows: list[dict[str, Any]], reference: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32)
    with PackedDataWriter(folder, {"units": "labels"}, ("reference_logprob", "desirable")) as writer:
        for row in rows:
            for answer in (row["answer"], row["mismatched"]):
                values = {
                    "reference_logprob": logprob(model, row["prompt"], answer),
                    "desirable": float(row["desirable"]),
                }
                writer.add(row["prompt"] + answer, [0] * len(row["prompt"]) + [1] * len(answer), values)
    return folder
