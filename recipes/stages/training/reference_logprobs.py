"""Compute the reference model's log-probability of every sample that `prepare_preferences` wrote. One process per GPU, or
per CPU rank.

In:  <data>/train and <data>/validation Out: train/ and validation/  reference_logprob.npy, float32, one per sample:
of its trained tokens; reference.json, the hashes
     of samples and model that they are of
The model is run forward alone, without gradients or optimizer, at any topology. A stage that was killed goes on from
the last part it wrote.
"""

from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.megatron.check_settings import validate_forward
from nemo_ext.megatron.settings import ForwardSettings, world_size
from nemo_ext.models.model import Model
from nemo_ext.records.manifest import Facts
from recipes.stage import Process, Stage, main_process, require_places

SPLITS = ("train", "validation")


@dataclass(kw_only=True)
class Config(Stage, ForwardSettings):
    data: str = field(default=MISSING, metadata={"path": True})
    """A prepare_preferences stage's folder."""
    model: Model = MISSING
    """The reference: the model that the training begins with."""


def check(cfg: Config) -> None:
    try:
        validate_forward(cfg)
    except ValueError as error:
        raise ValueError(f"stages.{cfg.name}: {error}") from error
    require_places(cfg, world_size(cfg))


def processes(cfg: Config, config_path: str) -> list[Process]:
    return [main_process(config_path, ranks=world_size(cfg))]


def run(cfg: Config) -> Facts:
    from nemo_ext.megatron.data.reference import FILE, RECORD
    from nemo_ext.megatron.data.token_folder import PackedData
    from nemo_ext.megatron.logprobs import write_logprobs
    from nemo_ext.megatron.weights.hf import local_folder
    from nemo_ext.models.model_files import weight_files
    from nemo_ext.records.progress import Progress

    folder = Path(cfg.output_dir)
    sources = {name: Path(cfg.data) / name for name in SPLITS if (Path(cfg.data) / name).is_dir()}
    data = {name: PackedData.open(source) for name, source in sources.items()}
    written = write_logprobs(cfg, cfg.model, sources, folder, Progress(folder, "samples"))
    return Facts(
        inputs=[file for each in data.values() for file in each.files],
        model_files=weight_files(local_folder(cfg.model.hf_path)),
        outputs=[folder / name / file for name in sources for file in (FILE, RECORD)],
        models={cfg.model.name: written["model"]},
        tokens={name: each.num_tokens for name, each in data.items()},
        figures={f"{name}_mean_logprob": round(written[name], 4) for name in sources},
    )
