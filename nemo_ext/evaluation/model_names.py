"""Names of models that reports treat apart: average; checkpoint_1, checkpoint_2, ... as export_hf writes them."""

from pathlib import Path

AVERAGE = "average"
_CHECKPOINT = "checkpoint_"


def checkpoint_name(number: int) -> str:
    return f"{_CHECKPOINT}{number}"


def is_checkpoint(model: str) -> bool:
    return model.startswith(_CHECKPOINT)


def checkpoint_number(model: str) -> int | None:
    """3 of `checkpoint_3`; None for any other name."""
    number = model.removeprefix(_CHECKPOINT)
    return int(number) if is_checkpoint(model) and number.isdecimal() else None


def step_of_export(model: Path) -> int | None:
    """The training step of a model in an export_hf stage's folder: `checkpoint_3` is the third of the checkpoints that its
    manifest names. None for any other model."""
    from nemo_ext.megatron.checkpoint_folders import step_of
    from nemo_ext.records import manifest

    number = checkpoint_number(model.name)
    if number is None or not (model.parent / manifest.MANIFEST).is_file():
        return None
    exported = [Path(each["path"]).parent for each in manifest.read(model.parent)["inputs"]]
    return step_of(exported[number - 1]) if 0 < number <= len(exported) else None
