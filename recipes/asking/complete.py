"""Completions of a stage's requests that outlive a kill: what was paid for is found again, the rest is asked for."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_ext.records.files import sha256_json
from nemo_ext.serving import server as servers
from recipes.asking.connect import connect, takes_any_model
from recipes.asking.served import ServedStage

if TYPE_CHECKING:
    from nemo_ext.serving.client.client import Encode, Loop, Stats
    from nemo_ext.serving.client.probe import Abilities
    from nemo_ext.serving.client.requests import Completion, Request
    from nemo_ext.serving.completions.completion_store import CompletionStore
    from nemo_ext.serving.completions.context_window import Window
    from nemo_ext.serving.completions.earlier_runs import EarlierCompletions

COMPLETIONS = "completions.jsonl"
REMEMBERED = 1 << 16
"""Keys of requests under way that are remembered before those that were answered meanwhile are forgotten."""


@dataclass
class Outcome:
    """What a run of requests came to, besides what is in the store."""

    stats: "Stats | None" = None
    """None: everything was there already."""
    given_up: dict[str, str] = field(default_factory=dict)
    """Request key -> last error, where attempts ran out; not in the store, so that a rerun tries again."""
    notes: dict[str, object] = field(default_factory=dict)
    """What the servers were found to honour or ignore."""

    @property
    def given_up_hash(self) -> str:
        """Stands for the requests without a reply: rows that lack one are written anew once it is there. "": none."""
        return sha256_json(sorted(self.given_up)) if self.given_up else ""

    @property
    def figures(self) -> dict[str, object]:
        """Of the last run alone, for the manifest."""
        if self.stats is None:
            return {}
        return {
            "requests_per_s": round(self.stats.done / self.stats.seconds, 1),
            "tokens_per_s": round(self.stats.generated_tokens / self.stats.seconds, 1),
            "retries": dict(sorted(self.stats.retries.items())),
        }

    def after(self, earlier: "Outcome") -> "Outcome":
        """With what was asked before it in the same run."""
        stats = self.stats if self.stats is not None else earlier.stats
        return Outcome(stats, earlier.given_up | self.given_up, earlier.notes | self.notes)


def complete_all(
    cfg: ServedStage,
    store: "CompletionStore",
    requests: Callable[[], Iterable["Request"]],
    total: int,
    unit: str,
    *,
    served: "Abilities | None" = None,
    samples_per_request: int = 1,
    may_drop: bool = False,
    loop: "Loop | None" = None,
) -> Outcome:
    """Run every request that the store has no completion of.

    Args:
        requests: those of equal content have the same key, and are sent once.
        total: how many there are in all.
        served: the servers, where the caller has connected already.
        samples_per_request: neighbours with the same prompt go out together, up to so many, if the servers honour `n`.
        may_drop: up to client.max_given_up of the requests may end without a completion.

    Raises:
        ValueError: some requests failed for now (the server was unreachable or overloaded): what succeeded is kept,
            and a rerun tries those again. Or prompts that cannot fit the model's window, one after another.
        WrongModel: a server has another model than this stage's.
    """
    from nemo_ext.records.progress import Progress
    from nemo_ext.serving.client.client import complete
    from nemo_ext.serving.completions.request_order import grouped, longest_last_first

    waiting = _unanswered(store, requests())
    first = next(waiting, None)
    if first is None:
        return Outcome()
    served = served or connect(cfg, first, samples_per_request)
    outcome, progress = Outcome(notes=_notes(served)), Progress(Path(cfg.output_dir), unit)

    encode = _encoder(cfg, served, first) if first.rendered else None
    keep = _Keep(store, outcome)

    def show(stats: "Stats") -> None:
        progress.update(len(store), total, **_live(stats, len(outcome.given_up)))

    progress.update(len(store), total)
    fitting = _fitting(cfg, store, chain([first], waiting), served)
    window = 2 * sum(endpoint.concurrency for endpoint in served.endpoints)
    ordered = longest_last_first(grouped(fitting, 1 if served.honours_n is False else samples_per_request), window)
    outcome.stats = complete(ordered, served.endpoints, cfg.client, keep, show, loop, encode)
    keep.refusals()
    given_up = len(outcome.given_up)
    if given_up > (cfg.client.max_given_up * total if may_drop else 0):
        last = next(reversed(outcome.given_up.values()))
        raise ValueError(f"{given_up} of {total} requests failed; the last: {last}. Rerun for them.")
    return outcome


def _unanswered(store: "CompletionStore", requests: Iterable["Request"]) -> Iterator["Request"]:
    """Those the store has no completion of, each key once. Remembers the keys whose completion is still to come, and not
    all of them: there may be many millions."""
    coming: set[str] = set()
    most = REMEMBERED
    for request in requests:
        if request.key in store or request.key in coming:
            continue
        if len(coming) >= most:
            coming = {key for key in coming if key not in store}
            most = max(REMEMBERED, 2 * len(coming))
        coming.add(request.key)
        yield request


class _Keep:
    """Stores completions as they come.

    Refusals are stored once another request succeeds: many in a row are the run's fault, a wrong key say, and not theirs.
    """

    def __init__(self, store: "CompletionStore", outcome: Outcome) -> None:
        self.store = store
        self.outcome = outcome
        self.refused: list[Completion] = []

    def __call__(self, completions: list["Completion"]) -> None:
        if completions[0].attempts == 0:  # a loop did without it this time; with other settings it may be needed
            return
        if completions[0].retryable:
            self.outcome.given_up.update({each.key: str(each.error) for each in completions})
        elif completions[0].error is not None:
            self.refused.extend(completions)
        else:
            self.store.append([*self.refused, *completions])
            self.refused.clear()

    def refusals(self) -> None:
        self.store.append(self.refused)


def _encoder(cfg: ServedStage, served: "Abilities", first: "Request") -> "Encode | None":
    """What makes token ids of rendered prompts: some servers (SGLang, llama.cpp) put a second BOS before a text that has
    one. None, for text, where the model is one that only its server knows, which may have another vocabulary.

    Raises:
        ValueError: the tokenizer is not here, and a server does not leave such a text as it is.
    """
    from tokenizers import Tokenizer

    from nemo_ext.models.chat_template import ChatTemplate
    from nemo_ext.serving.client.probe import keeps_text

    file = Path(cfg.model.hf_path).expanduser() / "tokenizer.json"
    ours = {endpoint.model for endpoint in served.endpoints} <= set(servers.accepted_ids(cfg.model))
    if file.is_file() and (ours or not takes_any_model(cfg)):
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return lambda text: tuple(tokenizer.encode(text, add_special_tokens=False).ids)
    if all(endpoint.dialect.rendered_text for endpoint in served.endpoints):
        return None
    bos = ChatTemplate.of(cfg.model).special_tokens.get("bos_token", "")
    if first.returns == "text" and cfg.client.probe and keeps_text(served.endpoints, first, bos):
        return None
    raise ValueError(
        f"stages.{cfg.name}: its prompts hold their special tokens, to which servers of kind {cfg.server['kind']} may add a "
        f"second BOS; they go as token ids where model {cfg.model.name}'s tokenizer.json is at hand and the server's model "
        f"is known to be it. Give the model's folder as hf_path (it is {cfg.model.hf_path}) and the model's name, or the "
        "id the server lists it by, as its name"
    )


def _notes(served: "Abilities") -> dict[str, object]:
    found = {"honours_n": served.honours_n, "honours_seed": served.honours_seed}
    return {
        "model_id": served.endpoints[0].model,
        **{name: value for name, value in found.items() if value is not None},
    }


def _fitting(
    cfg: ServedStage, store: "CompletionStore", requests: Iterable["Request"], served: "Abilities"
) -> Iterator["Request"]:
    """Those whose prompt fits the window; the others are stored as refused. Also those an earlier run has paid for."""
    from nemo_ext.serving.completions.context_window import too_long

    window = _window(cfg, served)
    earlier = earlier_completions(cfg)
    in_a_row: int | None = 0
    for request in requests:
        if (found := earlier.find(request.key)) is not None:
            store.append([found])
        elif window is not None and (why := window.refusal(request)) is not None:
            store.append([too_long(request.key, why)])
            in_a_row = None if in_a_row is None else in_a_row + 1
            if in_a_row == cfg.client.max_permanent_in_a_row:
                raise ValueError(f"none of the first {in_a_row} prompts fits; of the last, {why}")
        else:
            in_a_row = None
            yield request
    earlier.close()


def earlier_completions(cfg: ServedStage) -> "EarlierCompletions":
    """What was paid for in folders of the stage that were set aside; nothing where it is not to be used again."""
    from nemo_ext.serving.completions.earlier_runs import EarlierCompletions, earlier_files

    files = earlier_files(Path(cfg.output_dir), cfg.shard, cfg.shards, COMPLETIONS) if cfg.reuse_completions else []
    return EarlierCompletions(files)


def _window(cfg: ServedStage, served: "Abilities") -> "Window | None":
    from nemo_ext.serving.completions.context_window import Window

    ours = None if cfg.server["kind"] == "external" else cfg.server.get("max_seq_len") or cfg.model.context_length
    known = [tokens for tokens in (served.max_model_len, ours) if tokens]
    return Window(min(known), cfg.model.hf_path) if known else None


def _live(stats: "Stats", given_up: int) -> dict[str, object]:
    """What a stage's line shows besides done, total, rate and ETA."""
    per_s = 1 / max(stats.seconds, 1e-9)
    shown: dict[str, object] = {
        "req/s": round(stats.done * per_s, 1),
        "tok/s": round(stats.generated_tokens * per_s),
        "in_flight": stats.in_flight,
        "servers": stats.up,
    }
    counted = {"retried": stats.retries, "flawed": stats.flawed}
    for name, counts in counted.items():
        if counts:
            shown[name] = ",".join(f"{kind}:{count}" for kind, count in sorted(counts.items()))
    if stats.errors - given_up:
        shown["refused"] = stats.errors - given_up
    if given_up:
        shown["given_up"] = given_up
    return shown
