"""What the ranks of the multi-process tests run; see ranks.py."""

import json
from pathlib import Path
from typing import Any

import torch

import nemo_ext.megatron.train as training
from nemo_ext.megatron.build import build_model, unwrap
from nemo_ext.megatron.data.batches import microbatch
from nemo_ext.megatron.data.token_folder import PackedData
from nemo_ext.megatron.families.decoder import LlamaModel
from nemo_ext.megatron.record.metrics import read_metrics
from nemo_ext.megatron.runtime import parallel
from nemo_ext.megatron.runtime.optimizer import build_optimizer, build_scheduler, wrap_data_parallel
from nemo_ext.megatron.settings import TrainSettings, padded_vocab
from nemo_ext.megatron.weights.hf import ModelShape, SafetensorsSource, load_weights
from nemo_ext.models.model import Model


def sizes(tp: int = 1, pp: int = 1, vp: int | None = None, cp: int = 1, dp: int = 1, **others: Any) -> TrainSettings:
    fields = {"precision": "fp32", "make_vocab_size_divisible_by": 4, "seq_length": 64, "tensorboard": False} | others
    return TrainSettings(
        tensor_model_parallel_size=tp,
        pipeline_model_parallel_size=pp,
        virtual_pipeline_model_parallel_size=vp,
        context_parallel_size=cp,
        data_parallel_size=dp,
        **fields,
    )


def load(settings: TrainSettings, here: parallel.Parallel, folder: Path) -> LlamaModel:
    shape = ModelShape.from_hf(folder)
    model = unwrap(build_model(settings, shape, here)[0])
    assert isinstance(model, LlamaModel)
    rows = padded_vocab(settings, shape)
    source = SafetensorsSource(folder)
    load_weights(model, source, shape, model.first_layer, here.tensor_rank, here.tensor_size, rows)
    return model


def one_sample(tokens: list[int]) -> dict[str, Any]:
    length = len(tokens)
    return {
        "tokens": torch.tensor(tokens)[None],
        "position_ids": torch.arange(length)[None],
        "loss_mask": torch.ones(1, length),
        "cu_seqlens": torch.tensor([0, length], dtype=torch.int32),
        "max_seqlen": length,
    }


def logits(argument: dict[str, Any]) -> list[Any]:
    """Models at topologies: [[case, folder, largest difference from the folder's logits.pt]] on the last stage."""
    found = []
    for case in argument["cases"]:
        settings = sizes(**case)
        here = parallel.initialize(settings)
        for folder in map(Path, argument["folders"]):
            model = load(settings, here, folder).eval()
            batch = one_sample(json.loads((folder / "tokens.json").read_text()))
            output = _pipeline_logits(model, batch)
            if here.pipeline_rank == here.pipeline_size - 1:
                expected = torch.load(folder / "logits.pt", weights_only=True)
                found.append([case, folder.name, float((output[..., : expected.shape[-1]] - expected).abs().max())])
        parallel.leave_groups()
    return found


def _pipeline_logits(model: LlamaModel, batch: dict[str, Any]) -> torch.Tensor | None:
    from megatron.core.pipeline_parallel import get_forward_backward_func
    from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region

    def forward(iterator: Any, model: LlamaModel) -> Any:
        pack = model.pack_params(batch, batch)
        output = model(batch["tokens"], batch["position_ids"], None, packed_seq_params=pack)
        return output, lambda out, non_loss_data=False: gather_from_tensor_model_parallel_region(out)

    with torch.no_grad():
        outputs = get_forward_backward_func()(
            forward_step_func=forward,
            data_iterator=iter([None]),
            model=[model],
            num_microbatches=1,
            seq_length=batch["tokens"].shape[1],
            micro_batch_size=1,
            forward_only=True,
            collect_non_loss_data=True,
        )
    return outputs[0] if outputs else None


class NoProgress:
    def update(self, done: int, total: int | None = None, **info: Any) -> None:
        pass


def train_runs(argument: dict[str, Any]) -> list[Any]:
    """Trainings one after another in one job: [{"lines": metrics, "result": what train returned}]. Checkpoints take a
    third of the time: of a case with `save` false there is none."""
    training.shutdown = parallel.leave_groups  # stay in the job for the next case
    found, save = [], training.Trainer.save
    for case in argument["cases"]:
        training.Trainer.save = save if case.get("save", True) else lambda trainer: None  # type: ignore[method-assign]
        model = Model(name="tiny", hf_path=case["hf"], context_length=64)
        validation = PackedData.open(Path(case["validation"])) if case.get("validation") else None
        output = Path(case["output"])
        data = PackedData.open(Path(case["data"]))
        result = training.train(sizes(**case["settings"]), model, data, validation, output, NoProgress())
        found.append({"lines": list(read_metrics(output / "metrics.jsonl")), "result": result})
    return found


def single(argument: dict[str, Any]) -> dict[str, Any]:
    """What one process can show; see test_train.py for what is expected of each."""
    settings = sizes(
        weight_decay=0.123, lr=1e-3, lr_warmup_iters=2, train_iters=50, lr_decay_style="cosine", min_lr=0.0
    )
    here = parallel.initialize(settings)
    model = load(settings, here, Path(argument["hf"]))
    found = {
        "packed": _packed_against_alone(model, PackedData.open(Path(argument["data"]))),
        "neighbours": _neighbours(model, PackedData.open(Path(argument["data"])), Path(argument["changed"])),
        "schedule": _schedule(settings, model),
    }
    parallel.shutdown()
    return found


def token_losses(model: LlamaModel, batch: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        pack = model.pack_params(batch, batch)
        losses = model(batch["tokens"], batch["position_ids"], None, labels=batch["labels"], packed_seq_params=pack)
    return losses[0] * batch["loss_mask"][0]


def _packed_against_alone(model: LlamaModel, data: PackedData) -> float:
    """Largest difference of a token's loss between a pack of eight samples with padding and each sample alone."""
    pack = list(range(8))
    packed = token_losses(model, microbatch(data, pack, 400))
    alone = torch.cat([token_losses(model, microbatch(data, [i], int(data.lengths[i]))) for i in pack])
    assert float(alone.sum()) > 0, "the samples have trained tokens"
    return float((packed[: len(alone)] - alone).abs().max())


def _neighbours(model: LlamaModel, data: PackedData, changed: Path) -> dict[str, float]:
    """The same pack with other tokens in its third sample: how far that sample's losses move, and the others'."""
    other = PackedData.open(changed)
    pack = list(range(8))
    before, after = (token_losses(model, microbatch(d, pack, 400)) for d in (data, other))
    difference = (before - after).abs()
    start, end = int(data.offsets[2]), int(data.offsets[3])
    inside = float(difference[start:end].max())
    difference[start:end] = 0
    return {"inside": inside, "outside": float(difference.max())}


def _schedule(settings: TrainSettings, model: LlamaModel) -> list[dict[str, Any]]:
    """The optimizer's groups, their dimensions and what the scheduler has made of them after 0, 1, 2 and 50 steps."""
    optimizer = build_optimizer(settings, wrap_data_parallel(settings, [model]))
    scheduler = build_scheduler(settings, optimizer)
    found = []
    for step in range(51):
        if step in (0, 1, 2, 50):
            groups = [[g["wd_mult"], g["weight_decay"], g["lr"], len(g["params"])] for g in optimizer.param_groups]
            found.append({"step": step, "groups": groups})
        scheduler.step(increment=1)
    return found
