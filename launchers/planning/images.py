"""The image a stage runs in: a name of containers/images.yaml, or what the cluster's `images` puts in its place.

    nemo -> Image(reference="nvcr.io/nvidia/nemo:<tag>", digest=None, sqsh=None)

The only place that reads references from that file, so that every executor means the same image by a name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from launchers.planning.plan import PlannedStage
from nemo_ext.records import manifest
from nemo_ext.serving import server as servers

IMAGES = Path(__file__).resolve().parents[2] / "containers" / "images.yaml"
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
        ValueError: no such name; names those there are.
    """
    if name in overrides:
        return parse(name, overrides[name])
    entries = read()["images"]
    if name not in entries:
        raise ValueError(f"no such image; there are: {', '.join(sorted({*entries, *overrides}))}")
    entry = entries[name]
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
    if kind != name and starts_server and name in servers.kinds() and kind in {*read()["images"], *overrides}:
        raise ValueError(
            f"stages.{stage.name}.resources.image={name}, and its server is {kind}; use "
            f"stages.{stage.name}.resources.image={kind}"
        )
    return image


def parse(name: str, text: str) -> Image:
    """`<reference>`, `<reference>@sha256:<digest>` or `<path>.sqsh`.

    Raises:
        ValueError: it is not one of these.
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
def read() -> dict[str, Any]:
    """containers/images.yaml: its mappings `published`, `images` and `builds`."""
    loaded = OmegaConf.to_container(OmegaConf.load(IMAGES), resolve=True)
    assert isinstance(loaded, dict), f"{IMAGES} is a mapping"
    return {str(key): value for key, value in loaded.items()}


def how_to_get(image: Image) -> str:
    """How a missing image comes to this machine."""
    builds = [name for name, build in read()["builds"].items() if image.name in build["stands_for"]]
    ways = [f"docker pull {docker_reference(image)}"]
    if builds:
        ways += [f"python containers/build.py {' or '.join(builds)}, and use what it prints"]
    return ", or ".join(ways)


def environment(image: Image, check_versions: bool) -> dict[str, str]:
    """Environment variables that describe the image to processes in it, for image_versions.py and the manifest."""
    described = {
        "RECIPE_IMAGE": image.name,
        "RECIPE_IMAGE_REFERENCE": image.sqsh or docker_reference(image),
        "RECIPE_CODE_VERSION": _code_version(),  # images may lack git, or not trust the checkout's owner
    }
    return described if check_versions else described | {"RECIPE_IMAGE_CHECK": "off"}


@cache
def _code_version() -> str:
    return manifest.code_version()
