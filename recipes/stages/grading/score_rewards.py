"""Ask a reward model how good each sample is.

In:  rows with problem and generation (or generated_solution), such as an evaluation's
Out: the row and {"reward": -3.6}; of those that already have one, as they are; null where the model would not say
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from nemo_ext.prompts.prompt import Prompt, required_keys
from nemo_ext.records.manifest import Facts
from nemo_ext.rows.row import written_solution
from recipes.asking.complete import COMPLETIONS, asked_model, complete_all, connect
from recipes.asking.served import ServedStage, describe_server, server_processes
from recipes.stage import Process, ReadsRows, row_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from nemo_ext.rows.row import Row
    from nemo_ext.rows.row_input import RowFiles
    from nemo_ext.serving.client.probe import Abilities
    from nemo_ext.serving.client.requests import Completion, Request
    from nemo_ext.serving.completions.completion_store import CompletionStore

PROTOCOLS = ("chat", "pooling", "likelihood")
TRIED = 8
"""Solutions that are asked for before the others: whoever scores none of them is no reward model."""
WRONG_SERVER = frozenset({"bad_reply", "404", "405"})
"""Failures that no other solution would fare better with; an overloaded server or a text too long says nothing."""


@dataclass(kw_only=True)
class Config(ServedStage, ReadsRows):
    input: str = field(default=MISSING, metadata={"path": True})
    """An evaluation's folder, or rows of your own."""
    protocol: str = "chat"
    """chat: /v1/chat/completions with the problem and the solution as the two turns, answered by "name:score" pairs (NVIDIA
    NIM). pooling: the same turns to vLLM's /pooling (`vllm serve <model> --runner pooling`). likelihood: no reward model:
    the mean log-probability that any model gives the solution's tokens, from /v1/completions with `echo`."""
    prompt: Prompt | None = None
    """What the solution answers, for likelihood: as the evaluation asked."""
    weights: dict[str, float] = field(default_factory=dict)
    """Attribute -> weight, for models that score several; those of a pooled vector are "0", "1", ..."""


def check(cfg: Config) -> None:
    if cfg.protocol not in PROTOCOLS:
        raise ValueError(f"stages.{cfg.name}.protocol={cfg.protocol!r}; it may be {' or '.join(PROTOCOLS)}")
    if cfg.protocol == "likelihood" and cfg.prompt is None:
        raise ValueError(f"stages.{cfg.name}: protocol=likelihood needs prompt, which its problems are asked with")
    if cfg.protocol != "likelihood" and cfg.server.get("kind") == "embedded":
        raise ValueError(
            f"stages.{cfg.name}: server=embedded has no reward model. Name one that runs (server=external "
            f"server.urls=[...]), or take stages.{cfg.name}.protocol=likelihood"
        )


def processes(cfg: Config, config_path: str) -> list[Process]:
    return server_processes(cfg, config_path)


def run(cfg: Config) -> Facts:
    from nemo_ext.rows.passes import map_rows
    from nemo_ext.rows.row import require_rows
    from nemo_ext.serving.completions.completion_store import CompletionStore

    folder, files = Path(cfg.output_dir), row_files(cfg, cfg.input)
    asking = Asking(cfg)
    model = asked_model(cfg, lambda: next((asking.request(row) for row in asked_rows(files)), None))
    asking.model, asking.key = model.name, model.key
    with CompletionStore(folder / COMPLETIONS) as store:
        served = try_first(asking, files, store, model.served)
        total = count_distinct(asking, files)
        outcome = complete_all(
            cfg, store, lambda: requests(asking, files), total, "solutions", served=served, may_drop=True
        )
        rests_on = f"{model.key} {model.content}"
        mapped = map_rows(folder, files, lambda: scorer(asking, store), workers=1, rests_on=rests_on)
    if mapped.figures.get("no_score") and not mapped.figures.get("scored"):
        raise no_scores(
            asking,
            f"none of {mapped.figures['no_score']:,} replies is a score",
            f"with redo=true stages.{cfg.name}.reuse_completions=false",
        )
    require_rows(mapped.kept, cfg.name, mapped.dropped)
    return mapped.facts(
        files,
        server=describe_server(cfg) | outcome.notes,
        figures=mapped.figures | outcome.figures,
        **model.facts,
    )


def asked_rows(files: "RowFiles") -> "Iterator[Row]":
    from nemo_ext.rows.passes import scan_rows

    def select(rows: "list[Row]") -> "list[Row]":
        return [row for row in rows if is_asked(row)]

    for rows in scan_rows(files, lambda: select, workers=1):
        yield from rows


def is_asked(row: "Row") -> bool:
    return row.get("reward") is None and bool(written_solution(row))


def count_distinct(asking: "Asking", files: "RowFiles") -> int:
    return len({asking.identity(row) for row in asked_rows(files)})


def requests(asking: "Asking", files: "RowFiles") -> "Iterator[Request]":
    """Every distinct solution once."""
    seen: set[bytes] = set()
    for row in asked_rows(files):
        identity = asking.identity(row)
        if identity not in seen:
            seen.add(identity)
            yield asking.request(row)


def try_first(
    asking: "Asking", files: "RowFiles", store: "CompletionStore", served: "Abilities | None"
) -> "Abilities | None":
    """Ask for the first solutions by themselves, in two attempts each. Returns the servers; None: nothing was asked.

    Raises:
        ValueError: none of the replies is a score. They are not stored, so that a rerun asks again.
    """
    from nemo_ext.serving.client.client import complete
    from nemo_ext.serving.client.failures import Refused

    first = ((row, asking.request(row)) for row in asked_rows(files))
    tried = {request.key: (row, request) for row, request in islice(first, TRIED) if request.key not in store}
    if not tried:
        return served
    some = [request for _, request in tried.values()]
    served = served or connect(asking.cfg, some[0])
    replies: list[Completion] = []
    try:
        complete(some, served.endpoints, replace(asking.cfg.client, max_attempts=2), replies.extend)
    except Refused as error:
        if error.kind not in WRONG_SERVER:
            raise
        raise no_scores(asking, str(error), "with redo=true where a setting of the stage changed") from error
    given = [each for each in replies if each.error is None]
    try:
        scored = any(asking.worth(tried[each.key][0], each.text) is not None for each in given)
    except ValueError:  # scores, of attributes that the settings do not name
        store.append(given)
        raise
    if not scored and all(each.error is None or each.error_kind in WRONG_SERVER for each in replies):
        said = str(replies[0].error or replies[0].text)[:300]
        what = f"none of the first {len(replies)} replies of {served.endpoints[0].url} is a score; one is {said!r}"
        raise no_scores(asking, what, "with redo=true where a setting of the stage changed")
    store.append(given)
    return served


def no_scores(asking: "Asking", what: str, how: str) -> ValueError:
    cfg = asking.cfg
    others = ", ".join(each for each in PROTOCOLS if each != cfg.protocol)
    return ValueError(
        f"{what}. Is {asking.model} a reward model, and protocol={cfg.protocol} what its server speaks? Mend server.urls or "
        f"stages.{cfg.name}.protocol (others: {others}) and run again, {how}"
    )


class Asking:
    """A row's request, and what its reply is worth. `model`: its name; `key`: what stands for it in every request's key."""

    def __init__(self, cfg: Config) -> None:
        from nemo_ext.models.chat_template import ChatTemplate

        self.cfg = cfg
        self.model = cfg.model.name
        self.key = ""
        named = required_keys(cfg.prompt) if cfg.protocol == "likelihood" and cfg.prompt is not None else {"problem"}
        self._columns = sorted(named)
        self._template = ChatTemplate.of(cfg.model) if cfg.protocol == "likelihood" else None

    def identity(self, row: "Row") -> bytes:
        """Equal for rows whose request is the same."""
        from nemo_ext.rows.exact_json import dumps

        return hashlib.blake2b(
            dumps([*(row.get(name) for name in self._columns), written_solution(row)]), digest_size=16
        ).digest()

    def request(self, row: "Row") -> "Request":
        from nemo_ext.serving.client.requests import Request, Sampling, request_key

        sampling, protocol = Sampling(0.0, 1.0, 0, 1, (), None), self.cfg.protocol
        solution = written_solution(row)
        assert solution is not None, "is_asked says so"
        if protocol == "likelihood":
            text = self._context(row) + solution
            key = request_key(self.key, text, sampling, 0, protocol)
            return Request(key, text, sampling, rendered=True, returns="logprobs")
        turns = [{"role": "user", "content": row["problem"]}, {"role": "assistant", "content": solution}]
        key = request_key(self.key, turns, sampling, 0, protocol)
        return Request(key, turns, sampling, returns="pooling" if protocol == "pooling" else "text")

    def worth(self, row: "Row", reply: str) -> float | None:
        from nemo_ext.aggregation.rewards import mean_logprob, reward

        if self.cfg.protocol != "likelihood":
            return reward(reply, self.cfg.weights)
        return mean_logprob(
            reply, skip=len(self._tokenizer.encode(self._context(row), add_special_tokens=False).ids) - 1
        )

    def _context(self, row: "Row") -> str:
        from nemo_ext.prompts.prompt import render

        assert self.cfg.prompt is not None and self._template is not None, "check() wants them for likelihood"
        prompt = render(self.cfg.prompt, row)
        return prompt if isinstance(prompt, str) else self._template.render(prompt)

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(Path(self.cfg.model.hf_path) / "tokenizer.json"))


def scorer(
    asking: Asking, store: "CompletionStore"
) -> "Callable[[list[Row], Counter[str]], Iterator[tuple[Row, str | None]]]":
    def score(rows: "list[Row]", counts: Counter[str]) -> "Iterator[tuple[Row, str | None]]":
        for row in rows:
            key = asking.request(row).key if is_asked(row) else None
            if key is None or key not in store:
                counts["not_asked" if key is None else "no_reply"] += 1
                yield row | {"reward": row.get("reward")}, None
                continue
            completion = store.get(key)
            found = None if completion.error is not None else asking.worth(row, completion.text)
            counts["scored" if found is not None else "no_score"] += 1
            yield row | {"reward": found}, None

    return score
