"""Checkpoints and data that several of these test files share, made once."""

import json
from pathlib import Path

import pytest
import torch

from tests.nemo_ext.megatron.tiny import PLAIN_ROPE, save_data, save_llama


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("megatron")


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


def _with_logits(folder: Path, **changes: object) -> Path:
    model = save_llama(folder, **changes)
    tokens = torch.randint(0, 250, (1, 200), generator=torch.Generator().manual_seed(3))
    (folder / "tokens.json").write_text(json.dumps(tokens[0].tolist()))
    with torch.no_grad():
        torch.save(model(tokens).logits, folder / "logits.pt")
    return folder
