"""Average the weights of equally spaced checkpoints in fp32 (OpenMathInstruct-2: six of them).

In:  <checkpoints>/checkpoints/step_*  of a train_sft stage
Out: average/  a torch_dist checkpoint of the mean weights, without optimizer
"""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from nemo_ext.manifest import Facts
from recipes.stage import Stage


@dataclass(kw_only=True)
class Config(Stage):
    checkpoints: str = MISSING
    """A train_sft stage's folder."""
    steps: list[int] = MISSING
    """Which steps to average."""


def run(cfg: Config) -> Facts:
    from nemo_ext.megatron.average import average
    from nemo_ext.megatron.layout import select_steps

    sources = select_steps(Path(cfg.checkpoints) / "checkpoints", sorted(cfg.steps))
    folder = average(sources, Path(cfg.output_dir) / "average")
    return Facts(
        inputs=[source / "metadata.json" for source in sources],
        outputs=sorted(path for path in folder.iterdir() if path.is_file()),
        figures={"checkpoints": len(cfg.steps)},
    )
