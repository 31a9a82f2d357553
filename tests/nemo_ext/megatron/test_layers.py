"""Which layers are chosen, and that the choice says why."""

from typing import Any

import pytest
import torch

from nemo_ext.megatron.layers import kernels
from nemo_ext.megatron.layers.attention import PackedAttention, RMSNorm
from nemo_ext.megatron.settings import TrainSettings

CPU = torch.device("cpu")


def test_a_cpu_gets_local_layers_and_is_told_why() -> None:
    chosen = kernels.choose_layers(TrainSettings(), CPU)
    assert chosen.own_attention and chosen.norm is RMSNorm
    assert chosen.layer.submodules.self_attention.submodules.core_attention is PackedAttention
    assert "there is no GPU" in chosen.reason


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fp8": "hybrid"}, "fp8=hybrid: it needs Transformer Engine's kernels, but there is no GPU"),
        ({"use_precision_aware_optimizer": True}, "use_precision_aware_optimizer=True: it needs"),
        ({"layers": "transformer_engine"}, "layers=transformer_engine: it needs"),
    ],
)
def test_what_only_transformer_engine_can_do_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kernels.choose_layers(TrainSettings(**settings), CPU)


@pytest.mark.parametrize(
    ("installed", "settings", "reason"),
    [
        (False, {}, "Transformer Engine is not installed"),
        (True, {"layers": "local"}, "layers=local"),
    ],
)
def test_a_gpu_says_why_its_layers_are_local(
    installed: bool, settings: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "has", lambda module: installed)
    assert reason in kernels.choose_layers(TrainSettings(**settings), torch.device("cuda")).reason


def test_transformer_engine_is_used_on_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "has", lambda module: True)
    assert kernels.uses_transformer_engine(TrainSettings(), torch.device("cuda"))
    assert not kernels.uses_transformer_engine(TrainSettings(), CPU)
