"""Completions of a stage's requests that outlive a kill: what was paid for is found again, the rest is asked for."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ext.serving import server as servers
from recipes.asking.served import ServedStage, address_files

if TYPE_CHECKING:
    from nemo_ext.serving.client.client import Encode, Loop, Stats
    from nemo_ext.serving.client.probe import Abilities
    from nemo_ext.serving.client.requests import Completion, Request
    from nemo_ext.serving.completions.completion_store import CompletionStore
    from nemo_ext.serving.completions.context_window import Window

COMPLETIONS = "completions.jsonl"
MODEL_HASHES = "model_hashes.json"
"""In the stage's folder: hashes of a large model's files, which hundreds of shards need and one makes."""
log = logging.getLogger(__name__)


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
    def figures(self) -> dict[str, object]:
        """Of the last run alone, for the manifest."""
        if self.stats is None:
            return {}
        return {
            "requests_per_s": round(self.stats.done / self.stats.seconds, 1),
            "tokens_per_s": round(self.stats.generated_tokens / self.stats.seconds, 1),
            "retries": dict(sorted(self.stats.retries.items())),
        }


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
        total: how many requests there are in all.
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

    waiting = (request for request in requests() if request.key not in store)
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


@dataclass(frozen=True)
class AskedModel:
    """The model that a stage asks, known by what it is and not by what it is called."""

    name: str
    fingerprint: str
    """Of its files (nemo_ext/models/model_files.py), or a hub id; of an external server's own choice `as served`. With
    the id that server.model names where it is not the model's own: whether it is this model, nobody has looked."""
    key: str
    """Its part of every completion's key: of another model, or of this one served otherwise, none is used again."""
    files: list[Path]
    content: str
    """Of `files`, when the stage began: 16 hex digits."""
    served: "Abilities | None" = None
    """The servers, where they had to be asked which model they have."""

    @property
    def hash(self) -> str:
        """For contracts."""
        return f"{self.name}, {self.fingerprint}" if self.served else self.fingerprint

    @property
    def facts(self) -> dict[str, Any]:
        """What a stage's Facts say of it.

        Raises:
            ValueError: its files are no longer what they were when the stage began.
        """
        from nemo_ext.records.file_records import fingerprint

        if fingerprint(self.files) != self.content:
            raise ValueError(
                f"{self.files[0].parent} was changed while model {self.name} was asked, so nothing says what answered. Run "
                "the same command again: what this model is asked then is kept apart"
            )
        return {"models": {self.name: self.fingerprint}, "model_files": self.files}


def asked_model(cfg: ServedStage, first: Callable[[], "Request | None"], samples_per_request: int = 1) -> AskedModel:
    """Read the model's files, or ask an external server that may have any which one it has.

    Args:
        first: one of the requests to come, whatever its key; see `connect`. None: there are none.

    Raises:
        ValueError: the servers have different models, so that a completion would not say whose it is.
    """
    from nemo_ext.models.model_files import folder_of, model_files, text_files
    from nemo_ext.records.files import sha256_json

    # of a model elsewhere, what is used here: its tokenizer counts, and its template renders tool-integrated prompts
    files = text_files(cfg.model) if takes_any_model(cfg) else model_files(cfg.model)
    content = _fingerprint(cfg, files)
    if takes_any_model(cfg):
        request = first()
        served = None if request is None else connect(cfg, request, samples_per_request)
        name = cfg.model.name if served is None else _one_model(served)
        return AskedModel(name, "as served", sha256_json({"served": name}), files, content, served)
    found = content if folder_of(cfg.model) else cfg.model.hf_path
    key = {"files": content, "model": found, "server": servers.decides_texts(servers.load(cfg.server))}
    listed_as = cfg.server.get("model") if cfg.server["kind"] == "external" else None
    other_name = f", served as {listed_as}" if listed_as and listed_as not in servers.accepted_ids(cfg.model) else ""
    return AskedModel(cfg.model.name, f"{found}{other_name}", sha256_json(key), files, content)


def _fingerprint(cfg: ServedStage, files: list[Path]) -> str:
    """Of the model's files. One of the stage's tasks reads them, and leaves their hashes for the others."""
    from nemo_ext.records.file_records import fingerprint, keep, recall

    folder = Path(cfg.output_dir)
    store = (folder.parent if cfg.shards > 1 else folder) / MODEL_HASHES
    recall(store)
    content = fingerprint(files)
    keep(store, files)
    return content


def _one_model(served: "Abilities") -> str:
    have = {endpoint.url: endpoint.model for endpoint in served.endpoints}
    if len(set(have.values())) > 1:
        listed = ", ".join(f"{url} has {model}" for url, model in have.items())
        raise ValueError(
            f"the servers have different models: {listed}. Give server.urls of one model, or name it: server.model=<id>"
        )
    return served.endpoints[0].model


def takes_any_model(cfg: ServedStage) -> bool:
    """Which one it is, is known once the servers have been asked."""
    return cfg.any_model and bool(cfg.server["kind"] == "external")


def connect(cfg: ServedStage, first: "Request | None" = None, samples_per_request: int = 1) -> "Abilities":
    """Wait for this stage's servers, check that they have its model, and find out what they honour.

    Args:
        first: a request to come: whether it is a chat, and has a seed, decides what is tried.

    Raises:
        TimeoutError, ServersDown: no server.
        WrongModel: another model.
    """
    from nemo_ext.serving.address import wait_for
    from nemo_ext.serving.client.probe import probe

    server = servers.load(cfg.server)
    endpoints = (
        servers.module_of("external").endpoints(server)
        if server.kind == "external"
        else wait_for(address_files(cfg), server.startup_timeout_s)
    )
    endpoints = [replace(endpoint, concurrency=server.concurrency) for endpoint in endpoints]
    rendered = getattr(servers.module_of(server.kind), "RENDERED_TEXT", False)
    expected = [] if takes_any_model(cfg) else servers.accepted_ids(cfg.model)
    endpoints = [replace(each, dialect=replace(each.dialect, rendered_text=rendered)) for each in endpoints]
    seed = first is not None and first.sampling.seed is not None and first.sampling.temperature > 0
    served = probe(endpoints, cfg.client, expected, first, n=samples_per_request > 1, seed=seed)
    for ignored, effect in (("n", "each sample is a request of its own"), ("seed", "a rerun will sample other texts")):
        if getattr(served, f"honours_{ignored}") is False:
            log.warning("%s: the server ignores `%s`: %s", cfg.name, ignored, effect)
    return served


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
    from nemo_ext.serving.completions.earlier_runs import EarlierCompletions, earlier_files

    window = _window(cfg, served)
    files = earlier_files(Path(cfg.output_dir), cfg.shard, cfg.shards, COMPLETIONS) if cfg.reuse_completions else []
    earlier = EarlierCompletions(files)
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
