"""Losses of single pairs within one pack, for every objective of pairs."""

from pathlib import Path
from typing import Any

import torch


def losses(argument: dict[str, Any]) -> list[dict[str, list[float]]]:
    """Of each folder of argument["data"]: {name of KINDS: the loss of each pair, all in one pack}."""
    from nemo_ext.megatron import objective
    from nemo_ext.megatron.build import unwrap
    from nemo_ext.megatron.data.batches import microbatch
    from nemo_ext.megatron.data.token_folder import PackedData
    from nemo_ext.megatron.runtime import parallel
    from nemo_ext.megatron.runtime.pack_output import PackOutput
    from nemo_ext.megatron.train import load_model
    from nemo_ext.models.shape import ModelShape
    from tests.nemo_ext.megatron import programs
    from tests.nemo_ext.megatron.test_preferences import KINDS

    folder, settings = Path(argument["hf"]), programs.sizes()
    here = parallel.initialize(settings)
    found: list[dict[str, list[float]]] = [{} for _ in argument["data"]]
    for name, mapping in KINDS.items():
        if mapping["kind"] == "kto":  # whose baseline is everybody's
            continue
        chosen = objective.load(mapping)
        shape = ModelShape.from_hf(folder)
        shape = shape.with_head(chosen.head(shape))
        model = unwrap(load_model(settings, shape, folder, here)[0]).eval()
        for place, data in enumerate(map(PackedData.open, map(Path, argument["data"]))):
            batch = microbatch(data, range(len(data)), 400, columns=chosen.columns)
            labels = batch["labels"] if shape.head.kind == "vocabulary" else None
            with torch.no_grad():
                pack = model.pack_params(batch, batch)
                values = model(batch["tokens"], batch["position_ids"], None, labels=labels, packed_seq_params=pack)
            found[place][name] = [
                _one(chosen, PackOutput(values, batch, 0, 1, shape.head, None), i) for i in range(len(data) // 2)
            ]
    parallel.shutdown()
    return found


def _one(chosen: Any, output: Any, pair: int) -> float:
    """The loss of one pair of the pack."""
    from dataclasses import replace

    edges, part = output.part["cu_seqlens"], output.part
    columns = {name: values[2 * pair : 2 * pair + 2] for name, values in part["columns"].items()}
    alone = part | {"cu_seqlens": edges[2 * pair :], "num_samples": 2, "columns": columns}
    return float(chosen.loss(replace(output, part=alone)).total)


class _Stops:
    """A progress that fails at an update, as a job that is killed would; counts those there were."""

    def __init__(self, at: int | None) -> None:
        self.at, self.updates = at, 0

    def update(self, done: int, total: int | None = None, **info: Any) -> None:
        self.updates += 1
        if self.updates == self.at:
            raise InterruptedError


def logprobs(argument: dict[str, Any]) -> list[Any]:
    """logprobs.write_logprobs once per case: {"result", "updates"}, or {"error"} of one that is refused."""
    import nemo_ext.megatron.logprobs as scoring
    from nemo_ext.megatron.runtime import parallel
    from nemo_ext.models.model import Model
    from tests.nemo_ext.megatron import programs

    scoring.shutdown, scoring.PACKS = parallel.leave_groups, 1  # type: ignore[assignment]
    found: list[Any] = []
    for case in argument["cases"]:
        model = Model(name="tiny", hf_path=case["hf"], context_length=64)
        folders = {name: Path(path) for name, path in case["data"].items()}
        progress = _Stops(case.get("stop"))
        settings = programs.sizes(**case["settings"])
        try:
            result = scoring.write_logprobs(settings, model, folders, Path(case["output"]), progress)  # type: ignore[arg-type]
            found.append({"result": result, "updates": progress.updates})
        except InterruptedError:
            found.append({"updates": progress.updates})
    return found


def trainings(argument: dict[str, Any]) -> list[Any]:
    """programs.train_runs with the reference log-probabilities of each case's "reference" folder; what was refused instead
    of its lines."""
    import nemo_ext.megatron.train as training
    from nemo_ext.megatron.data.reference import with_reference
    from nemo_ext.megatron.data.token_folder import PackedData
    from nemo_ext.megatron.runtime import parallel
    from nemo_ext.models.model import Model
    from tests.nemo_ext.megatron import programs

    training.shutdown = parallel.leave_groups
    training.Trainer.save = lambda trainer: None  # type: ignore[method-assign]
    found: list[Any] = []
    for case in argument["cases"]:
        model = Model(name="tiny", hf_path=case["hf"], context_length=64)
        try:
            data = with_reference(
                PackedData.open(Path(case["data"])), Path(case["reference"]), case.get("precision", "fp32")
            )
            output = Path(case["output"])
            training.train(programs.sizes(**case["settings"]), model, data, None, output, programs.NoProgress())
            found.append(list(programs.read_metrics(output / "metrics.jsonl")))
        except ValueError as error:
            found.append(str(error))
    return found
