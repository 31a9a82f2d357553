"""Checkpoints and data that several of these test files share, made once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nemo_ext.megatron import objectives
from tests.nemo_ext.megatron.ranks import run_ranks
from tests.nemo_ext.megatron.tiny import PLAIN_ROPE, save_data, save_llama


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("megatron")


@pytest.fixture
def kinds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The objectives that a test module has written to its `folder` are found beside our own."""
    monkeypatch.setattr(objectives, "__path__", [*objectives.__path__, str(folder)])


@pytest.fixture(scope="session")
def llama31(workspace: Path) -> Path:
    """Grouped queries, llama3 rope scaling, untied; with tokens.json and transformers' logits.pt for them."""
    return _with_logits(workspace / "llama31")


@pytest.fixture(scope="session")
def tied(workspace: Path) -> Path:
    """One key-value head per query head, plain rope, tied embeddings."""
    changes = {"tie_word_embeddings": True, "rope_parameters": PLAIN_ROPE, "num_key_value_heads": 4}
    return _with_logits(workspace / "tied", **changes)


@pytest.fixture(scope="session")
def data(workspace: Path) -> Path:
    return save_data(workspace / "data")


@pytest.fixture(scope="session")
def trained(workspace: Path, llama31: Path, tied: Path, data: Path) -> dict[str, dict[str, Any]]:
    """Three short trainings over two processes, by name: {"lines", "result", "hf"}.

    tensor: fp32, checkpoints after 2, 4 and 6 steps. tied: tied embeddings, pipeline parallel. still: bf16 weights of a
    bf16 model after a step at learning rate 0.
    """
    save_llama(workspace / "bf16", seed=7, dtype=torch.bfloat16)
    cases: dict[str, tuple[Path, dict[str, Any]]] = {
        "tensor": (llama31, {"tp": 2, "train_iters": 6, "save_interval": 2}),
        "tied": (tied, {"pp": 2, "train_iters": 2}),
        "still": (workspace / "bf16", {"tp": 2, "train_iters": 1, "lr": 0.0, "precision": "bf16"}),
    }
    common = {"global_batch_size": 16, "lr": 1e-3, "pack_length": 256}
    arguments = [
        {
            "hf": str(folder),
            "data": str(data),
            "validation": str(data),
            "output": str(workspace / "trained" / name),
            "settings": common | changes,
        }
        for name, (folder, changes) in cases.items()
    ]
    results = run_ranks(2, "tests.nemo_ext.megatron.programs", "train_runs", {"cases": arguments})[0]
    return {name: {**result, "hf": cases[name][0]} for name, result in zip(cases, results, strict=True)}


def _with_logits(folder: Path, **changes: object) -> Path:
    model = save_llama(folder, **changes)
    tokens = torch.randint(0, 250, (1, 200), generator=torch.Generator().manual_seed(3))
    (folder / "tokens.json").write_text(json.dumps(tokens[0].tolist()))
    with torch.no_grad():
        torch.save(model(tokens).logits, folder / "logits.pt")
    return folder
