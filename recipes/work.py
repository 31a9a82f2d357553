"""Say what work a stage is, so that a plan can tell its time, memory and space. Light imports only.

A stage module says it by `work(cfg)`, beside check and processes, and needs none where nothing is known ahead:
    def work(cfg: Config) -> Training:
        return Training(cfg)
"""

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from recipes.asking.served import ServedStage
from recipes.stage import Stage


@dataclass(frozen=True)
class Training:
    """Optimizer steps on packed samples."""

    config: Any
    """The stage's own: TrainSettings (nemo_ext/megatron/settings.py) with `model`, `data`, a folder of packed samples, and
    `resources`."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Completions of a served model; the stage's Config is a ServedStage."""

    input: str | None = None
    """The file or folder whose rows are asked about. None: how much is asked is known only while it runs."""
    by: str = "problem_source"
    """The column whose values `samples` has."""
    samples: dict[str, int] = field(default_factory=dict)
    """Value in the column `by` -> completions of each row; `*`: of any other."""
    max_tokens: int = 0
    """Length of a completion; 0: not known."""
    others: "tuple[Asking, ...]" = ()
    """The same rows asked in further ways."""
    rows_are: str = "rows"
    """What the rows are called: problems, say."""


@dataclass(frozen=True)
class Writing:
    """Rows whose number is known before they are written."""

    num_rows: int | None
    """None: not known after all."""


Work = Training | Asking | Writing


def work_of(module: ModuleType, cfg: Any) -> Work | None:
    """What the module says of a task with that config; None: nothing."""
    if hasattr(module, "work"):
        said: Work = module.work(cfg)
        return said
    return Asking() if isinstance(cfg, ServedStage) else None


def has_work(module: ModuleType) -> bool:
    """Whether work_of says anything: a task's config need not be typed to know that it does not."""
    return hasattr(module, "work") or issubclass(getattr(module, "Config", Stage), ServedStage)
