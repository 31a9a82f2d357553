"""Names of models that reports treat apart: average; checkpoint_1, checkpoint_2, ... as export_hf writes them."""

AVERAGE = "average"
_CHECKPOINT = "checkpoint_"


def checkpoint_name(number: int) -> str:
    return f"{_CHECKPOINT}{number}"


def is_checkpoint(model: str) -> bool:
    return model.startswith(_CHECKPOINT)


def checkpoint_number(model: str) -> int | None:
    """3 of `checkpoint_3`; None for what is none."""
    number = model.removeprefix(_CHECKPOINT)
    return int(number) if is_checkpoint(model) and number.isdecimal() else None
