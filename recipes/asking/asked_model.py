"""The model that a stage asks, and its part of every completion's key."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_ext.serving import server as servers
from recipes.asking.connect import connect, takes_any_model
from recipes.asking.served import ServedStage

if TYPE_CHECKING:
    from nemo_ext.serving.client.probe import Abilities
    from nemo_ext.serving.client.requests import Request

MODEL_HASHES = "model_hashes.json"
"""In the stage's folder: hashes of a large model's files, which hundreds of shards need and one makes."""


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
