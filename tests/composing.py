"""A recipe composed as the command line composes it, without starting a process."""

from functools import cache
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from launchers.planning import plan, plugins, recipe_files, resolvers
from launchers.planning.overrides import prepare

RECIPES = recipe_files.short_names()

ON_ROWS = (
    "generate", "grade", "judge_answers", "vote", "filter", "deduplicate", "decontaminate", "downsample", "inject_noise",
    "publish_data", "select_code", "parse_replies", "explore", "export_scores", "rescore", "score_rewards", "choose_answers",
)  # fmt: skip
NEEDED = {name: ["input=rows.jsonl"] for name in ON_ROWS} | {
    "evaluate_checkpoint": ["checkpoints=run/train", "step=100"],
    "ablation_select_code": ["drawn=samples.jsonl"],
    "merge": ["models=[{path: a},{path: b}]"],
    "match_coverage": ["input=rows.jsonl", "second=more.jsonl"],
    "compare": ["input=run/evaluate/base", "second=run/evaluate/average"],
}


def compose_recipe(name: str, *overrides: str) -> DictConfig:
    """`+recipe=<name>` and `overrides`, in the order launchers/run.py gives Hydra them."""
    plugins.register()
    resolvers.register()
    words = prepare(recipe_files.named([*overrides, f"+recipe={name}"]))
    if not any(word.startswith("data=") or word == "+scale=tiny" for word in words):
        words.append("data=rows.jsonl")
    words += NEEDED.get(name, [])
    with hydra.initialize_config_dir(str(resolvers.CONF), version_base="1.3"):
        cfg = hydra.compose("config", words, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


@cache
def resolve_recipe(name: str, *overrides: str, run_dir: Path = Path("runs/x")) -> dict[str, plan.PlannedStage]:
    """The same, planned: stage name -> stage, in the recipe's order. Kept: composing takes a second, and tests only read."""
    return {stage.name: stage for stage in plan.resolve(compose_recipe(name, *overrides), run_dir)}
