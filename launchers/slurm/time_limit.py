"""Time limits as Slurm writes them, and in seconds."""

import re

FORM = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")
DAY_S = 86_400


def parse_limit(text: str, key: str) -> int:
    """Seconds of `HH:MM:SS` or `D-HH:MM:SS`.

    Raises:
        ValueError: anything else. Slurm would take `36000`, what YAML makes of an unquoted 10:00:00, as minutes.
    """
    found = FORM.fullmatch(text)
    seconds = 0 if found is None else _seconds(found)
    if seconds <= 0:
        hint = ""
        if text.isdigit():
            hint = f". YAML reads an unquoted time as a number: write '{show_limit(int(text))}' in quotes"
        raise ValueError(f"{key}={text!r}: it must be HH:MM:SS or D-HH:MM:SS, and not nothing{hint}")
    return seconds


def parse_maximum(text: str) -> int | None:
    """Seconds of a partition's MaxTime; None where it has none."""
    found = FORM.fullmatch(text)
    return None if found is None else _seconds(found)


def show_limit(seconds: int) -> str:
    """`3-00:00:00` or `04:00:00`."""
    days, rest = divmod(seconds, DAY_S)
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock


def _seconds(found: re.Match[str]) -> int:
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return days * DAY_S + hours * 3600 + minutes * 60 + seconds
