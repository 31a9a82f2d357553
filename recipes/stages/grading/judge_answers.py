"""Let a model decide the answers that no rule could compare, in both orders.

In:  rows of a grade stage: problem, predicted_answer, expected_answer, is_correct, verdict
Out: the row; of those that were asked about also {"judge_replies": ["True", "True."]}, and where both orders agree
     {"verdict": "equal", "is_correct": true, "grade_method": "judge"}. Where they do not, the row stays as it was.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from nemo_ext.prompts.prompt import Prompt, prompt_hash
from nemo_ext.records.manifest import Facts
from recipes.asking.complete import COMPLETIONS, asked_model, complete_all
from recipes.asking.served import ServedStage, describe_server, server_processes, stop_token_ids
from recipes.stage import Process, ReadsRows, row_files

if TYPE_CHECKING:
    from nemo_ext.rows.row import Row
    from nemo_ext.rows.row_input import RowFiles
    from nemo_ext.serving.client.requests import Request
    from nemo_ext.serving.completions.completion_store import CompletionStore

WHICH = {"undecided": {"undecided"}, "different": {"different"}, "both": {"undecided", "different"}}
ORDERS = ("predicted_answer", "expected_answer"), ("expected_answer", "predicted_answer")


@dataclass(kw_only=True)
class Config(ServedStage, ReadsRows):
    input: str = field(default=MISSING, metadata={"path": True})
    """A grade stage's folder, or rows of your own that have its columns."""
    which: str = "undecided"
    """Rows to ask about: undecided, different or both. Those without an answer are never asked about."""
    prompt: Prompt = MISSING
    """With {problem}, {expected_answer} and {predicted_answer}; the reply is True or False."""
    max_tokens: int = 1024
    """Of a reply; room for a model that reasons before its verdict."""


def check(cfg: Config) -> None:
    if cfg.which not in WHICH:
        raise ValueError(f"stages.{cfg.name}.which={cfg.which!r}; it may be one of {', '.join(WHICH)}")
    if cfg.shards != 1:
        raise ValueError(
            f"stages.{cfg.name}.shards={cfg.shards}: this stage is not split; set server.replicas instead"
        )


def processes(cfg: Config, config_path: str) -> list[Process]:
    return server_processes(cfg, config_path)


def run(cfg: Config) -> Facts:
    from nemo_ext.rows.passes import map_rows
    from nemo_ext.rows.row import require_rows
    from nemo_ext.serving.completions.completion_store import CompletionStore

    folder, files = Path(cfg.output_dir), row_files(cfg, cfg.input)
    first = next(asked_rows(cfg, files), None)
    model = asked_model(cfg, lambda: None if first is None else request_maker(cfg, "")(first, ORDERS[0]))
    request_of = request_maker(cfg, model.key)
    total = sum(len(ORDERS) for _ in asked_rows(cfg, files))
    with CompletionStore(folder / COMPLETIONS) as store:
        outcome = complete_all(
            cfg, store, lambda: requests(cfg, files, request_of), total, "judgements",
            served=model.served, may_drop=True,
        )  # fmt: skip
        mapped = map_rows(folder, files, lambda: judge_of(cfg, store, request_of), workers=1, rests_on=model.key)
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    return mapped.facts(
        files,
        prompts={cfg.prompt.name: prompt_hash(cfg.prompt)},
        server=describe_server(cfg) | outcome.notes,
        figures=mapped.figures | outcome.figures,
        **model.facts,
    )


def is_asked(cfg: Config, row: "Row") -> bool:
    from nemo_ext.grading.answers import answer_of

    if any(answer_of(row.get(key)) is None for key in ORDERS[0]):
        return False
    verdict = row.get("verdict")
    if verdict is None and isinstance(row.get("is_correct"), bool):  # graded elsewhere
        verdict = "equal" if row["is_correct"] else "different"
    return verdict in WHICH[cfg.which]


def asked_rows(cfg: Config, files: "RowFiles") -> "Iterator[Row]":
    from nemo_ext.rows.passes import scan_rows

    def select(rows: "list[Row]") -> "list[Row]":
        return [row for row in rows if is_asked(cfg, row)]

    for rows in scan_rows(files, lambda: select, workers=1):
        yield from rows


def requests(
    cfg: Config, files: "RowFiles", request_of: "Callable[[Row, tuple[str, str]], Request]"
) -> "Iterator[Request]":
    """Every distinct question once, in both orders."""
    seen: set[str] = set()
    for row in asked_rows(cfg, files):
        for order in ORDERS:
            request = request_of(row, order)
            if request.key not in seen:
                seen.add(request.key)
                yield request


def request_maker(cfg: Config, model: str) -> "Callable[[Row, tuple[str, str]], Request]":
    from nemo_ext.prompts.prompt import render
    from nemo_ext.serving.client.requests import Request, Sampling, request_key

    greedy = Sampling(0.0, 1.0, 0, cfg.max_tokens, tuple(cfg.prompt.stop), None, stop_token_ids(cfg, cfg.prompt))

    def request_of(row: "Row", order: tuple[str, str]) -> Request:
        answers = dict(zip(ORDERS[0], (str(row[key]) for key in order), strict=True))
        prompt = render(cfg.prompt, row | answers)
        return Request(request_key(model, prompt, greedy, 0), prompt, greedy)

    return request_of


def judge_of(
    cfg: Config, store: "CompletionStore", request_of: "Callable[[Row, tuple[str, str]], Request]"
) -> "Callable[[list[Row], Counter[str]], Iterator[tuple[Row, str | None]]]":
    def judge(rows: "list[Row]", counts: Counter[str]) -> "Iterator[tuple[Row, str | None]]":
        for row in rows:
            if not is_asked(cfg, row):
                yield row, None
                continue
            replies = [reply_to(store, request_of(row, order)) for order in ORDERS]
            decided = verdict_of(replies)
            counts["asked"] += 1
            counts["open" if decided is None else "equal" if decided else "different"] += 1
            yield row | {"judge_replies": replies} | columns(decided), None

    return judge


def reply_to(store: "CompletionStore", request: "Request") -> str | None:
    """None where the server refused, or did not answer as often as it may be asked."""
    if request.key not in store:
        return None
    completion = store.get(request.key)
    return completion.text if completion.error is None else None


def verdict_of(replies: list[str | None]) -> bool | None:
    """What both orders say; None where they disagree or one says nothing clear."""
    from nemo_ext.grading.judge import parse_verdict

    said = {None if reply is None else parse_verdict(reply) for reply in replies}
    return said.pop() if len(said) == 1 else None


def columns(decided: bool | None) -> dict[str, Any]:
    if decided is None:
        return {}
    return {"is_correct": decided, "verdict": "equal" if decided else "different", "grade_method": "judge"}
