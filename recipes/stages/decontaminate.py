"""Drop rows whose problem is a benchmark's in other words.

In:  rows of one or more stages, and a prepare_benchmarks stage's problems
Out: the rows that are clean; the others in dropped.jsonl, with evidence: {"reason": "contaminated_gsm8k",
     "contamination": {"benchmark": "gsm8k", "id": "12", "problem": "...", "score": 0.83, "reply": "True"}}
Every distinct problem is compared with the `top_k` most similar of *each* benchmark's problems (OpenMathInstruct-2:
5), judged in both orders; original training problems are checked like new ones.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.curation.decontaminate import number_signature
from nemo_ext.manifest import Facts
from nemo_ext.prompts import Prompt, prompt_hash
from nemo_ext.rows import Row, RowWriter, input_files, read_rows, require_rows
from recipes.complete import COMPLETIONS, complete_all
from recipes.served import ServedStage, describe_server, server_processes
from recipes.stage import Process, main_process

if TYPE_CHECKING:
    from nemo_ext.curation.decontaminate import Candidate, Evidence
    from nemo_ext.serving.requests import Request

JUDGES = ("llm", "rule")
CHUNK = 10_000
MAX_REPLY_TOKENS = 16


@dataclass(kw_only=True)
class Config(ServedStage):
    inputs: list[str] = field(default_factory=list)
    benchmarks: str = MISSING
    judge: str = "llm"
    """llm: the served model is asked, greedily, in both orders. rule: numbers and wording decide, nothing is served."""
    prompt: Prompt | None = None
    """With {problem} and {other_problem}; for the llm judge."""
    top_k: int = 5
    number_matches: int = 0
    """Besides, so many of each benchmark's problems with exactly the same numbers: wording can hide them from retrieval."""


def check(cfg: Config) -> None:
    if cfg.judge not in JUDGES:
        raise ValueError(f"stages.{cfg.name}.judge={cfg.judge!r}; it may be one of {JUDGES}")
    if cfg.judge == "llm" and cfg.prompt is None:
        raise ValueError(f"stages.{cfg.name}.prompt is not set, and judge=llm needs one")


def processes(cfg: Config, config_path: str) -> list[Process]:
    return server_processes(cfg, config_path) if cfg.judge == "llm" else [main_process(config_path)]


def run(cfg: Config) -> Facts:
    folder = Path(cfg.output_dir)
    files = [file for source in cfg.inputs for file in input_files(source)]
    tests = [row for file in input_files(cfg.benchmarks) for row in read_rows(file)]
    problems = {row["problem"]: row["expected_answer"] for file in files for row in read_rows(file)}
    found = _find(cfg, problems, tests)
    with RowWriter(folder) as out:
        for file in files:
            for row in read_rows(file):
                evidence = found.get(row["problem"])
                if evidence is None:
                    out.keep(row)
                else:
                    out.drop(
                        row | {"contamination": _describe(evidence)}, f"contaminated_{evidence.candidate.benchmark}"
                    )
        require_rows(out.kept, cfg.name, out.dropped)
    return Facts(
        inputs=[*files, *input_files(cfg.benchmarks)],
        outputs=[folder / "output.jsonl"],
        rows_in=out.total,
        rows_out=out.kept,
        dropped=out.dropped,
        prompts={cfg.prompt.name: prompt_hash(cfg.prompt)} if cfg.prompt and cfg.judge == "llm" else {},
        server=describe_server(cfg) if cfg.judge == "llm" else {},
        figures={
            "problems": len(problems),
            "contaminated": len(found),
            "by_benchmark": dict(Counter(evidence.candidate.benchmark for evidence in found.values())),
            **audit(files, tests, found),
        },
    )


def _describe(evidence: "Evidence") -> dict[str, Any]:
    candidate = asdict(evidence.candidate)
    return {
        "benchmark": candidate["benchmark"],
        "id": candidate["benchmark_id"],
        "problem": candidate["problem"],
        "score": round(candidate["score"], 4),
        "order": evidence.order,
        "reply": evidence.reply,
    }


def _find(cfg: Config, problems: dict[str, str | None], tests: list[Row]) -> dict[str, "Evidence"]:
    """Contaminated problem -> evidence."""
    from nemo_ext.curation.decontaminate import contaminated, rule_judge

    if cfg.judge == "llm":
        return _ask(cfg, list(problems), tests)
    answers = problems | {row["problem"]: row["expected_answer"] for row in tests}

    def judge(first: str, second: str) -> bool:
        both = answers[first] is not None and answers[second] is not None
        return rule_judge(first, second, answers[first] == answers[second] if both else None)

    judged = ((p, contaminated(p, near, judge)) for p, near in _candidates(cfg, list(problems), tests))
    return {problem: evidence for problem, evidence in judged if evidence is not None}


def _candidates(cfg: Config, problems: list[str], tests: list[Row]) -> Iterator[tuple[str, list["Candidate"]]]:
    """Each problem with the benchmark problems to compare it with, the most similar first."""
    from nemo_ext.curation.decontaminate import Candidate
    from nemo_ext.curation.retrieve import Retriever

    groups: dict[str, list[Row]] = {}
    for row in tests:
        groups.setdefault(row["benchmark"], []).append(row)
    retrievers = {name: Retriever([row["problem"] for row in rows]) for name, rows in groups.items()}
    by_numbers = {name: _by_numbers(rows) for name, rows in groups.items()}
    for start in range(0, len(problems), CHUNK):
        chunk = problems[start : start + CHUNK]
        hits = {name: retriever.top_k(chunk, cfg.top_k) for name, retriever in retrievers.items()}
        for i, problem in enumerate(chunk):
            near = {(name, index): score for name in groups for index, score in hits[name][i]}
            for name in groups:
                for index in by_numbers[name].get(number_signature(problem), [])[: cfg.number_matches]:
                    near.setdefault((name, index), 0.0)
            ranked = sorted(near.items(), key=lambda hit: (-hit[1], hit[0]))
            rows = [(name, groups[name][index], score) for (name, index), score in ranked]
            yield problem, [Candidate(name, str(row["id"]), row["problem"], score) for name, row, score in rows]


def _by_numbers(rows: list[Row]) -> dict[tuple[str, ...], list[int]]:
    found: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        found.setdefault(number_signature(row["problem"]), []).append(index)
    return found


def _ask(cfg: Config, problems: list[str], tests: list[Row]) -> dict[str, "Evidence"]:
    """Ask the served model about every candidate in both orders, then read its replies."""
    from nemo_ext.curation.decontaminate import contaminated
    from nemo_ext.serving.store import CompletionStore

    request_of = _request_maker(cfg)
    near = list(_candidates(cfg, problems, tests))

    def requests() -> Iterator["Request"]:
        for problem, candidates in near:
            for candidate in candidates:
                yield request_of(problem, candidate.problem)
                yield request_of(candidate.problem, problem)

    with CompletionStore(Path(cfg.output_dir) / COMPLETIONS) as store:
        complete_all(cfg, store, requests, 2 * sum(len(candidates) for _, candidates in near), "judgements")

        def judge(first: str, second: str) -> str:
            return store.get(request_of(first, second).key).text

        found = {problem: contaminated(problem, candidates, judge) for problem, candidates in near}
    return {problem: evidence for problem, evidence in found.items() if evidence is not None}


def _request_maker(cfg: Config) -> Callable[[str, str], "Request"]:
    from nemo_ext.prompts import render
    from nemo_ext.serving.requests import Request, Sampling, request_key

    assert cfg.prompt is not None, "check() refuses an llm judge without a prompt"
    asked = cfg.prompt
    greedy = Sampling(0.0, 1.0, 0, MAX_REPLY_TOKENS, tuple(asked.stop), None)

    def request_of(first: str, second: str) -> Request:
        prompt = render(asked, {"problem": first, "other_problem": second})
        return Request(request_key(cfg.model.name, prompt, greedy, 0), prompt, greedy)

    return request_of


def audit(files: list[Path], tests: list[Row], found: dict[str, "Evidence"]) -> dict[str, Any]:
    """In the toy world the truth is known: recall on the injected paraphrases, and precision over all problems found,
    save those a teacher has garbled so that they are no problem of the toy world."""
    from nemo_ext.toy.problems import identify

    keys = {row["toy_key"] for row in tests if "toy_key" in row}
    if not keys:
        return {}
    injected = {row["problem"] for file in files for row in read_rows(file) if row.get("contaminates")}
    right = Counter(key in keys for problem in found if (key := identify(problem)) is not None)
    return {
        "injected": len(injected),
        "injected_found": len(injected & found.keys()),
        "recall": round(len(injected & found.keys()) / len(injected), 4) if injected else None,
        "precision": round(right[True] / right.total(), 4) if right else None,
    }
