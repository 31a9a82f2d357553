"""Ten steps of TRL's trainers, with the same weights and samples: the same losses and the same first gradient."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from tests.nemo_ext.megatron.preference_data import random_labels, random_pairs, save_labels, save_pairs
from tests.nemo_ext.megatron.ranks import run_ranks
from tests.nemo_ext.megatron.tiny import save_llama

trl = pytest.importorskip("trl", reason="trl, which these are compared with, is not installed")
pytestmark = pytest.mark.timeout(300)

PROGRAM = ("tests.nemo_ext.megatron.programs", "train_runs")
UNITS, STEPS, RATE = 12, 10, 5e-4
KINDS: dict[str, dict[str, Any]] = {
    "dpo": {"kind": "dpo", "beta": 0.2},
    "ipo": {"kind": "ipo", "beta": 0.3},
    "kto": {"kind": "kto", "beta": 0.2, "desirable_weight": 1.5},
    "reward": {"kind": "reward_bradley_terry", "center_weight": 0.01},
}


@pytest.fixture(scope="module")
def places(workspace: Path) -> dict[str, Path]:
    folders = {name: workspace / f"trl_{name}" for name in ("model", "reference", "classifier", "pairs", "labels")}
    save_llama(folders["model"])
    save_llama(folders["reference"], seed=1)
    model = AutoModelForSequenceClassification.from_pretrained(folders["model"], num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = 0
    model.save_pretrained(folders["classifier"])
    save_pairs(folders["pairs"], random_pairs(UNITS), folders["reference"])
    save_labels(folders["labels"], random_labels(UNITS), folders["reference"])
    return folders


@pytest.fixture(scope="module")
def ours(workspace: Path, places: dict[str, Path]) -> dict[str, list[dict[str, Any]]]:
    cases = []
    for name, chosen in KINDS.items():
        data = str(places["labels" if name == "kto" else "pairs"])
        settings = {
            "objective": chosen,
            "global_batch_size": UNITS,
            "lr": RATE,
            "train_iters": STEPS,
            "pack_length": 128,
        }
        settings |= {"weight_decay": 0.0, "adam_beta2": 0.98}
        start = str(places["classifier" if name == "reward" else "model"])
        cases.append(
            {"hf": start, "data": data, "output": str(workspace / f"ours_{name}"), "settings": settings, "save": False}
        )
    results = run_ranks(1, *PROGRAM, {"cases": cases})[0]
    return {
        name: [line for line in result["lines"] if "loss" in line] for name, result in zip(KINDS, results, strict=True)
    }


def tokenizer() -> PreTrainedTokenizerFast:
    """Of words w0, w1, ...: trainers need one, and the samples are ids already."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({f"w{i}": i for i in range(250)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="w0", eos_token="w1", unk_token="w0")


def arguments(kind: Any, output: Path, **more: Any) -> Any:
    return kind(
        output_dir=str(output), per_device_train_batch_size=UNITS, max_steps=STEPS, learning_rate=RATE, weight_decay=0.0,
        adam_beta2=0.98, lr_scheduler_type="constant", max_grad_norm=0.0, bf16=False, use_cpu=True, report_to=[],
        gradient_checkpointing=False, save_strategy="no", max_length=None, disable_tqdm=True, logging_strategy="no", **more,
    )  # fmt: skip


def theirs(name: str, places: dict[str, Path], output: Path) -> Any:
    """A trainer of TRL's whose samples are the same ids."""
    from datasets import Dataset

    model = AutoModelForCausalLM.from_pretrained(places["model"], dtype=torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(places["reference"], dtype=torch.float32)
    words, pairs, labels = tokenizer(), random_pairs(UNITS), random_labels(UNITS)
    settings = KINDS[name]
    if name == "reward":
        config = arguments(trl.RewardConfig, output, center_rewards_coefficient=settings["center_weight"])
        data = Dataset.from_list(
            [{f"{side}_ids": p["prompt"] + p[side] for side in ("chosen", "rejected")} for p in pairs]
        )
        scorer = AutoModelForSequenceClassification.from_pretrained(places["classifier"], dtype=torch.float32)
        return trl.RewardTrainer(scorer, args=config, processing_class=words, train_dataset=data)
    if name == "kto":
        weights = {key: settings[key] for key in ("beta", "desirable_weight")}
        text = Dataset.from_list(
            [{"prompt": "w2", "completion": f" w{3 + i}", "label": bool(i % 2)} for i in range(UNITS)]
        )
        trainer = trl.KTOTrainer(
            model,
            reference,
            args=arguments(trl.KTOConfig, output, **weights),
            processing_class=words,
            train_dataset=text,
        )
        trainer.train_dataset = Dataset.from_list(
            [
                {
                    "prompt_ids": r["prompt"],
                    "completion_ids": r["answer"],
                    "KL_completion_ids": r["mismatched"],
                    "label": r["desirable"],
                }
                for r in labels
            ]
        )
        return trainer
    kind = "ipo" if name == "ipo" else "sigmoid"
    config = arguments(
        trl.DPOConfig,
        output,
        beta=settings["beta"],
        loss_type=[kind],
        label_smoothing=settings.get("label_smoothing", 0.0),
    )
    text = Dataset.from_list([{"prompt": "w2", "chosen": f" w{3 + i}", "rejected": " w4 w5"} for i in range(UNITS)])
    trainer = trl.DPOTrainer(model, reference, args=config, processing_class=words, train_dataset=text)
    trainer.train_dataset = Dataset.from_list(
        [{f"{k}_ids": p[k] for k in ("prompt", "chosen", "rejected")} for p in pairs]
    )
    return trainer


@pytest.mark.parametrize("name", KINDS)
def test_losses_and_gradients_are_trls(
    ours: dict[str, list[dict[str, Any]]], places: dict[str, Path], tmp_path: Path, name: str
) -> None:
    trainer = theirs(name, places, tmp_path)
    losses: list[float] = []
    norms: list[float] = []
    compute, step = trainer.compute_loss, trainer.training_step

    def compute_loss(*args: Any, **kwargs: Any) -> Any:
        found = compute(*args, **kwargs)
        losses.append(float((found[0] if isinstance(found, tuple) else found).detach()))
        return found

    def training_step(*args: Any, **kwargs: Any) -> Any:
        found = step(*args, **kwargs)
        norms.append(
            float(torch.stack([p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]).norm())
        )
        return found

    trainer.compute_loss, trainer.training_step = compute_loss, training_step
    trainer.train()
    assert [line["loss"] for line in ours[name]] == pytest.approx(losses, rel=1e-5)
    assert len(losses) == STEPS and losses[0] != losses[-1]
    assert ours[name][0]["grad_norm"] == pytest.approx(norms[0], rel=1e-5)
