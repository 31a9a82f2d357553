"""What an image has inside is what containers/images.yaml says, or the job says which package differs."""

from pathlib import Path

import pytest

from nemo_ext.records import image_versions
from nemo_ext.records.image_versions import check, fits, installed

YAML = """
images:
  mine: {versions: {omegaconf: WANTED, no-such-package: null, PyYAML: null}}
"""


def images(folder: Path, wanted: str) -> Path:
    path = folder / "images.yaml"
    path.write_text(YAML.replace("WANTED", wanted))
    return path


def test_outside_of_an_image_nothing_is_checked() -> None:
    assert check({}) == {}


def test_what_is_inside_goes_into_the_manifest(tmp_path: Path) -> None:
    told = check({"RECIPE_IMAGE": "mine", "RECIPE_IMAGE_REFERENCE": "a/b:1"}, images(tmp_path, "2.*"))
    versions = {"omegaconf": installed("omegaconf"), "no-such-package": None, "PyYAML": installed("pyyaml")}
    assert told == {"name": "mine", "reference": "a/b:1", "versions": versions}
    assert versions["omegaconf"] and versions["PyYAML"]


@pytest.mark.parametrize("wanted", ["2.3", "1.*", "9.9.9"])
def test_another_version_is_refused_unless_told_to_go_on(tmp_path: Path, wanted: str) -> None:
    path, environ = images(tmp_path, wanted), {"RECIPE_IMAGE": "mine", "RECIPE_IMAGE_REFERENCE": "a/b:1"}
    with pytest.raises(ValueError) as caught:
        check(environ, path)
    found = installed("omegaconf")
    assert f"image mine (a/b:1) has omegaconf {found}, expected {wanted} " in str(caught.value)
    assert "cluster.check_versions=false" in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert check(environ | {"RECIPE_IMAGE_CHECK": "off"}, path)["versions"]["omegaconf"] == found


def test_a_missing_package_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "images.yaml"
    path.write_text("images: {mine: {versions: {no-such-package: 1.0.0}}}")
    with pytest.raises(ValueError, match=r"has no no-such-package, expected 1\.0\.0"):
        check({"RECIPE_IMAGE": "mine"}, path)


def test_an_image_of_the_clusters_own_has_no_demands(tmp_path: Path) -> None:
    told = check({"RECIPE_IMAGE": "other", "RECIPE_IMAGE_REFERENCE": "x:1"}, images(tmp_path, "1"))
    assert told == {"name": "other", "reference": "x:1", "versions": {}}


@pytest.mark.parametrize(
    ("found", "wanted", "answer"),
    [
        ("2.9.1", "2.9.1", True),
        ("2.9.1+cu130", "2.9.1", True),
        ("2.9.0a0+145a3a7.nv25.10", "2.9.*", True),
        ("0.16.1rc0", "0.16.*", True),
        ("2.90.1", "2.9.*", False),
        ("2.9", "2.9.*", True),
        ("2.9.10", "2.9.1", False),
        (None, "1.*", False),
    ],
)
def test_fits(found: str | None, wanted: str, answer: bool) -> None:
    assert fits(found, wanted) is answer


def test_every_version_written_is_one_that_can_be_compared() -> None:
    known = image_versions.OmegaConf.load(image_versions.IMAGES).images
    assert {"base", "nemo", "trtllm"} <= set(known)
    for entry in known.values():
        assert entry.versions, "at least what goes into the manifest"
        assert all(wanted is None or isinstance(wanted, str) for wanted in entry.versions.values()), (
            "quote 1.10: YAML reads 1.1"
        )
