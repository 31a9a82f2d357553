"""Drop rows whose problem is a benchmark's: the same text, a run of words in common, or the same in other words.

In:  rows of one or more stages, or of a person's own files, and a prepare_benchmarks stage's problems
Out: the rows that are clean; the others in dropped.jsonl, with evidence: {"reason": "contaminated_gsm8k",
     "contamination": {"benchmark": "gsm8k", "id": "12", "problem": "...", "method": "llm", "score": 0.83,
     "order": "benchmark_first", "reply": "True"}}
     contaminated.jsonl: one row per contaminated problem, with all that it is a copy of; audit.md: a table per benchmark
Every distinct problem is compared with the `top_k` most similar test problems of each benchmark, or of all
together (OpenMathInstruct-2: 5 of all), judged in both orders; original training problems are checked like new ones.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.prompts.prompt import Prompt, prompt_hash
from nemo_ext.records.file_records import content_hashes, stamp
from nemo_ext.records.files import atomic_open, sha256_file, write_text_atomic
from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import Row, dumps, input_files, input_patterns, read_rows, require_rows
from recipes.asking.judges.pair_judge import PairJudge
from recipes.asking.served import ServedStage, describe_server, server_processes
from recipes.stage import Process, RowStage, main_process, row_files

if TYPE_CHECKING:
    from nemo_ext.curation.contamination.audit import Audit
    from nemo_ext.curation.contamination.candidates import Hit, Methods
    from nemo_ext.curation.contamination.parts import Parts
    from nemo_ext.rows.row_input import RowFiles
    from recipes.asking.judges.pair_judge import Judged

JUDGES = ("llm", "rule", "none")
MODES = ("drop", "mark", "audit")
RETRIEVAL = ("tfidf", "dense")
TOP_K_OF = ("all", "each")
PREPARED = {"id", "benchmark", "problem", "expected_answer"}
CANDIDATES, CONTAMINATED, AUDIT = "candidates", "contaminated.jsonl", "audit.md"
MAX_LISTED = 10  # hits of a method that a row of contaminated.jsonl has; a phrase that many tests have makes hundreds
log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Config(ServedStage, RowStage):
    inputs: list[str] = field(default_factory=list, metadata={"path": True})
    benchmarks: str = field(default=MISSING, metadata={"path": True})
    ngrams: list[int] = field(default_factory=list)
    """Problems that share so many words in a row with a benchmark's are contaminated, whatever a judge says: [10] as in
    NuminaMath, [30] as in Skywork-Math. The same text but for case, spaces and punctuation always is."""
    judge: str = "llm"
    """llm: the served model is asked, greedily, in both orders. rule: numbers and wording decide, nothing is served.
    none: exact matches and n-grams alone."""
    prompt: Prompt | None = None
    """With {problem} and {other_problem}; for the llm judge."""
    retrieval: list[str] = field(default_factory=lambda: ["tfidf"])
    """How what the judge compares is found: tfidf by words in common; dense by a sentence encoder; or both."""
    encoder: str = field(default="", metadata={"model": True})
    """For dense: a sentence-transformers model, a folder or a name (OpenMathInstruct-2: multi-qa-MiniLM-L6-cos-v1)."""
    top_k: int = 5
    """So many of the most similar test problems are judged, an LLM's twice each."""
    top_k_of: str = "each"
    """all: of all benchmarks' problems together (OpenMathInstruct-2). each: of each benchmark's, so that four benchmarks
    take four times as many judgements, and less is missed."""
    number_matches: int = 0
    """Besides, so many of each benchmark's problems with exactly the same numbers: wording can hide them from retrieval."""
    mode: str = "drop"
    """drop: contaminated rows go to dropped.jsonl. mark: they stay, with the evidence under `contamination`. audit: no
    rows are written, only contaminated.jsonl and audit.md."""


def check(cfg: Config) -> None:
    place = f"stages.{cfg.name}"
    for key, value, choices in (
        ("judge", cfg.judge, JUDGES),
        ("mode", cfg.mode, MODES),
        ("top_k_of", cfg.top_k_of, TOP_K_OF),
    ):
        if value not in choices:
            raise ValueError(f"{place}.{key}={value!r}; it may be one of {choices}")
    if cfg.judge == "llm" and cfg.prompt is None:
        raise ValueError(f"{place}.prompt is not set, and judge=llm needs one")
    if cfg.shards > 1:
        raise ValueError(f"{place}.shards={cfg.shards}: a problem would be judged once a shard; set workers instead")
    _check_methods(cfg, place)


def _check_methods(cfg: Config, place: str) -> None:
    unknown = [name for name in cfg.retrieval if name not in RETRIEVAL]
    if unknown or (cfg.judge != "none" and not cfg.retrieval):
        raise ValueError(
            f"{place}.retrieval={list(cfg.retrieval)}; it may have {RETRIEVAL}, and is ignored with judge=none"
        )
    if cfg.judge != "none" and "dense" in cfg.retrieval and not cfg.encoder:
        raise ValueError(f"{place}.encoder is not set, and dense retrieval needs a sentence-transformers model")
    if any(n < 1 for n in cfg.ngrams):
        raise ValueError(f"{place}.ngrams={list(cfg.ngrams)}: lengths in words, each at least 1")
    if cfg.top_k < 1 or cfg.number_matches < 0:
        raise ValueError(
            f"{place}.top_k={cfg.top_k}, number_matches={cfg.number_matches}: at least 1 and at least 0 candidates"
        )


def processes(cfg: Config, config_path: str) -> list[Process]:
    return server_processes(cfg, config_path) if cfg.judge == "llm" else [main_process(config_path)]


def run(cfg: Config) -> Facts:
    from nemo_ext.curation.contamination.candidates import by_benchmark
    from nemo_ext.curation.contamination.parts import Parts
    from nemo_ext.records.progress import Progress

    folder, methods = Path(cfg.output_dir), _methods(cfg)
    files = row_files(cfg, *cfg.inputs)
    benchmark_files = input_files(cfg.benchmarks)
    tests = by_benchmark(_tests(cfg, benchmark_files))
    parts = Parts(folder / CANDIDATES)
    parts.collect(files, _identity(files, benchmark_files, methods), cfg.workers)
    parts.search(tests, methods, cfg.workers, Progress(folder, "parts").update)
    judge = PairJudge(cfg, cfg.prompt, parts, tests) if cfg.judge == "llm" and cfg.prompt else None
    judged = judge or ((number, row, found.hits, 0) for number, row, found in parts.read())
    audit, truth = _write_found(cfg, judged, parts, tests)
    written, layouts = _write_rows(cfg, files)
    return Facts(
        inputs=[*files, *benchmark_files],
        listed=[*files.listed, *input_patterns(cfg.benchmarks)],
        inputs_came_meanwhile=files.came_meanwhile,
        prompts={judge.prompt.name: prompt_hash(judge.prompt)} if judge else {},
        models=judge.model.facts["models"] if judge else {},
        model_files=[*(judge.model.files if judge else []), *_encoder_files(methods)],
        server=describe_server(cfg) if judge else {},
        figures=audit.figures | truth | layouts | {"table": str(folder / AUDIT)},
        scratch=[folder / CANDIDATES],  # a copy of every problem
        **written,
    )


def _tests(cfg: Config, files: list[Path]) -> list[Row]:
    tests = [row for file in files for row in read_rows(file)]
    require_rows(len(tests), f"{cfg.name}: benchmarks={cfg.benchmarks}", Counter())
    if not all(row.keys() >= PREPARED for row in tests):
        raise ValueError(
            f"stages.{cfg.name}.benchmarks={cfg.benchmarks}: not what prepare_benchmarks writes, rows with "
            f"{', '.join(sorted(PREPARED))}. Files of your own go through that stage: benchmarks=[<file>]"
        )
    return tests


def _methods(cfg: Config) -> "Methods":
    from nemo_ext.curation.contamination.candidates import Methods

    retrieval = () if cfg.judge == "none" else tuple(cfg.retrieval)
    return Methods(
        ngrams=tuple(cfg.ngrams),
        retrieval=retrieval,
        encoder=cfg.encoder if "dense" in retrieval else "",
        top_k=cfg.top_k,
        top_k_of=cfg.top_k_of,
        number_matches=cfg.number_matches,
        rule=cfg.judge == "rule",
    )


def _identity(files: "RowFiles", benchmark_files: list[Path], methods: "Methods") -> dict[str, Any]:
    """What the candidates were made from: with another, those of an earlier run are of no use."""
    return {
        "inputs": [[str(file), *stamp(file)] for file in files],
        "columns": dict(files.columns),
        "benchmarks": [sha256_file(file) for file in benchmark_files],
        "methods": str(methods),
        "encoder": content_hashes(_encoder_files(methods)),
    }


def _encoder_files(methods: "Methods") -> list[Path]:
    """None of a name: it is fetched by that name."""
    return sorted(path for path in Path(methods.encoder).rglob("*") if path.is_file()) if methods.encoder else []


def _write_found(
    cfg: Config, judged: Iterable["Judged"], parts: "Parts", tests: list[Row]
) -> tuple["Audit", dict[str, Any]]:
    """contaminated.jsonl and audit.md; and where the truth is known recall and precision."""
    from nemo_ext.curation.contamination.audit import Audit
    from nemo_ext.curation.contamination.ngrams import NgramIndex

    index = NgramIndex([row["problem"] for row in tests], cfg.ngrams)
    audit = Audit(tests, {n: index.too_short(n) for n in index.lengths})
    truth, rows, folder = _Truth(tests), parts.rows, Path(cfg.output_dir)
    with atomic_open(folder / CANDIDATES / CONTAMINATED) as handle:
        for number, problem, hits, undecided in judged:
            num_rows = int(rows[number])
            audit.add(problem["problem"], num_rows, hits)
            audit.undecided += undecided
            truth.add(problem, bool(hits))
            if hits:
                handle.write(dumps(_contaminated(problem, num_rows, hits, tests)) + b"\n")
    _put_in_place(folder)
    columns = ["exact", *(f"{n}-gram" for n in sorted(cfg.ngrams)), *([] if cfg.judge == "none" else [cfg.judge])]
    table = audit.markdown(f"Contamination: {cfg.name}", columns)
    write_text_atomic(folder / AUDIT, table)
    log.info("%s", table.partition("\n\n## ")[0])
    return audit, truth.figures


def _put_in_place(folder: Path) -> None:
    """Rows that were told from another contaminated.jsonl are made anew."""
    from nemo_ext.rows.part_files import PARTS

    new, old = folder / CANDIDATES / CONTAMINATED, folder / CONTAMINATED
    if old.is_file() and sha256_file(old) == sha256_file(new):
        new.unlink()
    else:
        shutil.rmtree(folder / PARTS, ignore_errors=True)
        new.replace(old)


def _contaminated(problem: Row, num_rows: int, hits: list["Hit"], tests: list[Row]) -> Row:
    from nemo_ext.curation.contamination.candidates import evidence

    by_method: dict[str, list[Hit]] = {}
    for hit in hits:
        by_method.setdefault(hit.method, []).append(hit)
    shown = [hit for each in by_method.values() for hit in each[:MAX_LISTED]]
    first, *others = [evidence(hit, tests[hit.test]) for hit in shown]
    return {
        "id": problem["id"],
        "problem": problem["problem"],
        "num_rows": num_rows,
        "benchmark": first["benchmark"],
        "benchmark_id": first["id"],
        "benchmark_problem": first["problem"],
        **{key: value for key, value in first.items() if key not in ("benchmark", "id", "problem")},
        "num_hits": len(hits),
        "also": [{key: value for key, value in other.items() if key != "problem"} for other in others],
    }


def _write_rows(cfg: Config, files: "RowFiles") -> tuple[dict[str, Any], dict[str, Any]]:
    """The manifest's outputs and counts, and its figure of layouts."""
    from nemo_ext.rows.passes import map_rows

    folder = Path(cfg.output_dir)
    found = [folder / CONTAMINATED, folder / AUDIT]
    if cfg.mode == "audit":
        return {"outputs": found}, {}
    mapped = map_rows(folder, files, partial(_marker, folder / CONTAMINATED, cfg.mode == "drop"), workers=cfg.workers)
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    counted = {"rows_in": mapped.total, "rows_out": mapped.kept, "dropped": mapped.dropped}
    return {"outputs": [*mapped.outputs, *found], **counted}, mapped.layout_figures


def _marker(path: Path, drop: bool) -> Callable[[list[Row], Counter[str]], Iterator[tuple[Row, str | None]]]:
    texts: dict[str, str] = {}  # of benchmark problems, each once however many rows are copies of it
    found = {row["problem"]: _reason(row, texts) for row in read_rows(path)}

    def mark(rows: list[Row], counts: Counter[str]) -> Iterator[tuple[Row, str | None]]:
        for row in rows:
            problem = row.get("problem")
            why = found.get(problem) if isinstance(problem, str) else None
            if why is None:
                yield row, None
            else:
                yield row | {"contamination": why}, f"contaminated_{why['benchmark']}" if drop else None

    return mark


def _reason(row: Row, texts: dict[str, str]) -> Row:
    """A row's `contamination`: the strongest evidence, and of an LLM's replies the one that says so."""
    from nemo_ext.prompts.replies import verdict

    text = texts.setdefault(row["benchmark_problem"], row["benchmark_problem"])
    kept = {"benchmark": row["benchmark"], "id": row["benchmark_id"], "problem": text}
    kept |= {key: row[key] for key in ("method", "score", "words") if key in row}
    says_so = [(order, reply) for order, reply in row.get("replies", {}).items() if verdict.parse(reply)]
    return kept | ({"order": says_so[0][0], "reply": says_so[0][1]} if says_so else {})


class _Truth:
    """Of rows whose truth is known: recall on those that were planted (`contaminates`), and, where benchmark problems say
    which task they state (`states_task`), precision over the problems found whose task is known: by that column, or as the
    scheme of its address tells it from the text. A text that a teacher has garbled states none."""

    def __init__(self, tests: list[Row]) -> None:
        from nemo_ext.curation.contamination.parts import STATES_TASK
        from nemo_ext.rows.sources import teller_of_tasks

        self._tasks = {row[STATES_TASK] for row in tests if row.get(STATES_TASK)}
        self._task_of = teller_of_tasks(min(self._tasks)) if self._tasks else None
        self._planted = self._found = 0
        self._right: Counter[bool] = Counter()

    def add(self, problem: Row, found: bool) -> None:
        from nemo_ext.curation.contamination.parts import PLANTED, STATES_TASK

        planted = bool(problem.get(PLANTED))
        self._planted += planted
        self._found += planted and found
        if not self._tasks or not found:
            return
        task = problem.get(STATES_TASK) or (self._task_of(problem["problem"]) if self._task_of else None)
        if task is not None:
            self._right[task in self._tasks] += 1

    @property
    def figures(self) -> dict[str, Any]:
        if not self._tasks and not self._planted:
            return {}
        right = self._right
        return {
            "injected": self._planted,
            "injected_found": self._found,
            "recall": round(self._found / self._planted, 4) if self._planted else None,
            "precision": round(right[True] / right.total(), 4) if right else None,
        }
