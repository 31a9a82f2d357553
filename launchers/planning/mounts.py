"""`cluster.mounts`: what containers see of this machine's file systems, as `source:target[:flag[+flag ...]]`."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mount:
    source: str
    target: str
    flags: tuple[str, ...] = ()
    """e.g. ("ro",)"""

    @classmethod
    def parse(cls, text: str) -> "Mount":
        """`source` alone is mounted where it is.

        Raises:
            ValueError: paths that are not absolute, or more parts than three.
        """
        source, *rest = text.split(":")
        target = rest[0] if rest else source
        if not source.startswith("/") or not target.startswith("/") or len(rest) > 2 or "," in text:
            raise ValueError(
                f"cluster.mounts has {text!r}; it must be <absolute source>:<absolute target>, with :ro after it to "
                "keep it from being written"
            )
        return cls(source, target, tuple(rest[1].split("+")) if len(rest) == 2 else ())


def check_mounts(mounts: list[str]) -> list[str]:
    """What is wrong with them on this machine, a line each."""
    problems = []
    for text in mounts:
        try:
            mount = Mount.parse(text)
        except ValueError as error:
            problems.append(str(error))
            continue
        if not Path(mount.source).exists():
            problems.append(f"cluster.mounts has {text!r}, and there is no {mount.source} on this machine")
    return problems
