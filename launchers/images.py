"""Which image a stage runs in: a name of containers/images.yaml, or what the cluster's `images` puts in its place.

    nemo -> Image(reference="nvcr.io/nvidia/nemo:26.02", digest=None, sqsh=None)

The only place that reads references from that file, so that every executor means the same image by a name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from launchers.plan import PlannedStage
from nemo_ext.serving import server as servers

IMAGES = Path(__file__).resolve().parent.parent / "containers" / "images.yaml"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Image:
    """Where one image is: a reference that a registry or the daemon knows, or a file."""

    name: str
    reference: str | None
    """<registry>/<repository>:<tag>, without a digest; None: it is a file."""
    digest: str | None = None
    """sha256:<64 hex digits>; None: the tag is not pinned."""
    sqsh: str | None = None
    """A squashfs file, which enroot and pyxis take."""


def resolve(name: str, overrides: Mapping[str, str]) -> Image:
    """The image of that name; `overrides`, the cluster's `images`, win over containers/images.yaml.

    Raises:
        ValueError: no such name, or no reference under it.
    """
    if name in overrides:
        return parse(name, overrides[name])
    entries = _entries(IMAGES)
    if name not in entries:
        raise ValueError(f"image {name!r} is not known; there are: {', '.join(sorted({*entries, *overrides}))}")
    entry = entries[name]
    if isinstance(entry, str):
        return parse(name, entry)
    if not entry["reference"]:
        raise ValueError(
            f"image {name} is built for your site: python containers/build.py {name}, and put the line it prints "
            f"into {IMAGES.parent.name}/{IMAGES.name} or the cluster's images"
        )
    return parse(name, f"{entry['reference']}@{entry['digest']}" if entry["digest"] else entry["reference"])


def of_stage(stage: PlannedStage, overrides: Mapping[str, str]) -> Image:
    """The image a stage's processes run in.

    Raises:
        ValueError: resources.image names no image, or that of another kind of server than the stage starts.
    """
    name = stage.resources.image
    try:
        image = resolve(name, overrides)
    except ValueError as error:
        raise ValueError(f"stages.{stage.name}.resources.image={name!r}: {error}") from error
    kind = stage.tasks[0].content.get("server", {}).get("kind", name)
    starts_server = any(process.service for process in stage.tasks[0].processes)
    if kind != name and starts_server and name in servers.kinds() and kind in {*_entries(IMAGES), *overrides}:
        raise ValueError(
            f"stages.{stage.name}.resources.image={name}, and its server is {kind}; use "
            f"stages.{stage.name}.resources.image={kind}"
        )
    return image


def parse(name: str, text: str) -> Image:
    """`<reference>`, `<reference>@sha256:<digest>` or `<path>.sqsh`.

    Raises:
        ValueError: it is none of these.
    """
    if text.endswith(".sqsh"):
        return Image(name, None, sqsh=text)
    reference, at, digest = text.partition("@")
    if (
        not re.fullmatch(r"[\w./:-]+", reference, re.ASCII)
        or reference[0] in "-/.:"
        or (at and not DIGEST.fullmatch(digest))
    ):
        raise ValueError(
            f"image {name}: {text!r} may be <registry>/<repository>:<tag>, the same with @sha256:<64 hex digits>, or "
            "the path of a .sqsh file"
        )
    return Image(name, reference, digest or None)


def docker_reference(image: Image) -> str:
    """What docker calls it; with a digest, that decides and the tag is for the reader.

    Raises:
        ValueError: it is a .sqsh file.
    """
    if image.reference is None:
        raise ValueError(f"image {image.name} is the file {image.sqsh}, and docker takes references only")
    return f"{image.reference}@{image.digest}" if image.digest else image.reference


def enroot_reference(image: Image) -> str:
    """What enroot and pyxis call it: a .sqsh file, or a reference with # after the registry. Enroot 3 takes no digest."""
    if image.reference is None:
        assert image.sqsh is not None, "an image is a reference or a file"
        return image.sqsh
    registry, slash, rest = image.reference.partition("/")
    return f"{registry}#{rest}" if slash and re.search(r"[.:]", registry) else image.reference


@cache
def _entries(path: Path) -> dict[str, Any]:
    loaded = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    assert isinstance(loaded, dict), f"{path} is a mapping"
    return {str(key): value for key, value in loaded.items()}
