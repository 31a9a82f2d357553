"""Compare evaluations problem by problem: the first given with each of the others.

In:  folders of evaluate, rescore or search stages; a folder with several variants stands for all of them
Out: comparison.json  [{"first": "base", "second": "average", "contract_differences": {}, "benchmarks": {"gsm8k": {
     "problems": 1319, "points": 4.1, "low": 2.2, "high": 6.0, "gained": 120, "lost": 66, "test": "exact McNemar",
     "p": 0.0001, "p_holm": 0.0002, "words": "average solves ..."}}}]; comparison.txt, the same as a table and in words
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from nemo_ext.records.manifest import Facts
from recipes.stage import Stage

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Config(Stage):
    evaluations: list[str] = field(default_factory=list, metadata={"path": True})
    """Two or more; the first is what the others are compared with."""
    allow_contract_mismatch: bool = False
    """Compare scores whose contracts differ all the same, and say in what."""


def check(cfg: Config) -> None:
    if not cfg.evaluations:
        raise ValueError(f"stages.{cfg.name}.evaluations is empty; give the folders of two or more evaluations")
    if all(Path(each).is_dir() for each in cfg.evaluations):  # others are what this run is to make
        check_contracts(cfg, _folders(cfg))


def check_contracts(cfg: Config, folders: list[Path]) -> None:
    """Raises ValueError, saying in what they differ, where the contracts do and that is not allowed."""
    from nemo_ext.evaluation.contract import Contract, compare
    from nemo_ext.evaluation.scores import read_scores

    first, *others = [Contract.from_dict(read_scores(each)["contract"]) for each in folders]
    for folder, other in zip(folders[1:], others, strict=True):
        try:
            compare(first, other, cfg.allow_contract_mismatch)
        except ValueError as error:
            raise ValueError(
                f"{folders[0]} and {folder}: {error} To see them side by side all the same, with a warning: "
                f"stages.{cfg.name}.allow_contract_mismatch=true"
            ) from error


def _folders(cfg: Config) -> list[Path]:
    from nemo_ext.evaluation.paired import evaluation_folders

    folders = list(dict.fromkeys(each for given in cfg.evaluations for each in evaluation_folders(Path(given))))
    if len(folders) < 2:
        raise ValueError(
            f"stages.{cfg.name}.evaluations: got one evaluation, {folders[0]}; give another to compare it with"
        )
    return folders


def run(cfg: Config) -> Facts:
    from nemo_ext.evaluation.contract import in_words
    from nemo_ext.evaluation.paired import compare_all, read_evaluation, table
    from nemo_ext.evaluation.scores import SCORES
    from nemo_ext.records.files import write_json_atomic, write_text_atomic
    from nemo_ext.rows.row import input_files, input_patterns

    folders = _folders(cfg)
    check_contracts(cfg, folders)
    out, first = Path(cfg.output_dir), read_evaluation(folders[0])
    found = compare_all(first, [read_evaluation(each) for each in folders[1:]], cfg.allow_contract_mismatch)
    words = [f"{name}: {of['words']}" for comparison in found for name, of in comparison["benchmarks"].items()]
    unlike = {
        f"{each['first']} and {each['second']}": in_words(each["contract_differences"])
        for each in found
        if each["contract_differences"]
    }
    warnings = [f"{pair} were scored under different contracts: {what}" for pair, what in unlike.items()]
    text = "\n\n".join(["\n".join(warnings)] * bool(warnings) + [table(found), "\n".join(words)])
    log.info("\n%s", text)
    write_json_atomic(out / "comparison.json", found)
    write_text_atomic(out / "comparison.txt", text + "\n")
    figures = {
        f"{each['second']} - {each['first']}, {name}": f"{of['points']:+.1f} points ({of['low']:+.1f} to {of['high']:+.1f})"
        for each in found
        for name, of in each["benchmarks"].items()
    }
    return Facts(
        inputs=[path for each in folders for path in (each / SCORES, *input_files(each))],
        listed=[pattern for each in folders for pattern in input_patterns(each)],
        outputs=[out / "comparison.json", out / "comparison.txt"],
        figures=figures | {f"contracts of {pair} differ": what for pair, what in unlike.items()},
    )
