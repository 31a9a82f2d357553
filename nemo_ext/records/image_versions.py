"""Compare the packages in the image a job runs in with those that containers/images.yaml names.

The executor names the image by environment variables (launchers/planning/images.py); without them nothing is checked, for
a job then runs in whatever environment its launcher has. Packages are looked up, not imported.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

IMAGES = Path(__file__).resolve().parents[2] / "containers" / "images.yaml"


def check(environ: Mapping[str, str], images: Path = IMAGES) -> dict[str, Any]:
    """What the manifest says of the image: {"name": "nemo", "reference": ..., "versions": {"torch": "2.9.1", ...}}, with
    null for a package that is not there; empty outside of an image.

    Raises:
        ValueError: a version is not the one in images.yaml, and the executor did not say to go on.
    """
    name = environ.get("RECIPE_IMAGE")
    if not name:
        return {}
    known = OmegaConf.load(images).images
    wanted = dict(known[name].versions) if name in known else {}  # an image that only the cluster's file knows
    found = {package: installed(package) for package in wanted}
    wrong = [
        f"{package} {found[package]}, expected {want}" if found[package] else f"no {package}, expected {want}"
        for package, want in wanted.items()
        if want is not None and not fits(found[package], str(want))
    ]
    reference = environ.get("RECIPE_IMAGE_REFERENCE", "")
    if wrong and environ.get("RECIPE_IMAGE_CHECK") != "off":
        raise ValueError(
            f"image {name} ({reference}) has {'; '.join(wrong)} (containers/images.yaml, images.{name}.versions). Use "
            f"the image it names, correct the version there if this one is meant, or set cluster.check_versions=false"
        )
    return {"name": name, "reference": reference, "versions": found}


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def fits(found: str | None, wanted: str) -> bool:
    """2.9.1+cu130 fits 2.9.1 and 2.9.*, and 2.90 does not fit 2.9.*."""
    if found is None:
        return False
    if wanted.endswith(".*"):
        return f"{found}.".startswith(wanted[:-1])
    return found == wanted or found.partition("+")[0] == wanted
