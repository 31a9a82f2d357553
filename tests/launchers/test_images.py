"""One name, one image, whatever runs it."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launchers.planning import images
from launchers.planning.images import Image
from recipes.stage import Process, Resources, Stage
from tests.conftest import ROOT
from tests.launchers.process_stages import bare_stage

DIGEST = "sha256:" + "0123456789abcdef" * 4


@dataclass(kw_only=True)
class Served(Stage):
    server: dict[str, str] = field(default_factory=dict)


def test_every_image_has_a_tag_and_no_image_is_the_latest_one() -> None:
    entries = {**images.read()["published"], **images.read()["images"]}
    assert len(entries) >= 6
    for name, entry in entries.items():
        image = images.parse(name, entry["reference"])
        assert image.reference is not None and image.reference.count("/") >= 2, f"{name} says its registry"
        tag = image.reference.rsplit("/", 1)[1].partition(":")[2]
        assert tag and tag not in ("latest", "main", "nightly"), name
        assert entry["digest"] is None or images.DIGEST.fullmatch(entry["digest"])


def test_tags_are_written_in_one_place() -> None:
    places = [ROOT / "launchers", ROOT / "recipes", ROOT / "nemo_ext", ROOT / "conf", ROOT / "containers"]
    files = [path for place in places for path in place.rglob("*") if path.suffix in (".py", ".yaml", ".Dockerfile")]
    assert len(files) > 100
    for entry in images.read()["published"].values():
        repository = entry["reference"].rpartition(":")[0]
        having = [path for path in files if re.search(rf"{re.escape(repository)}:\w", path.read_text())]
        assert having == [images.IMAGES], repository


def test_builds_start_from_published_images_and_stand_for_images() -> None:
    known = images.read()
    for name, build in known["builds"].items():
        assert build["from"] in known["published"] and set(build["stands_for"]) <= set(known["images"])
        assert (images.IMAGES.parent / f"{build.get('dockerfile', name)}.Dockerfile").is_file()


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("docker.io/vllm/vllm-openai:v1", Image("x", "docker.io/vllm/vllm-openai:v1")),
        (f"reg:5000/a/b:1@{DIGEST}", Image("x", "reg:5000/a/b:1", DIGEST)),
        ("/shared/nemo.sqsh", Image("x", None, sqsh="/shared/nemo.sqsh")),
    ],
)
def test_the_clusters_images_win(text: str, image: Image) -> None:
    assert images.resolve("x", {"x": text}) == image
    assert images.resolve("nemo", {"x": text}).reference == images.read()["images"]["nemo"]["reference"]


@pytest.mark.parametrize(
    "text", ["", "a b", "--privileged", "/no/registry", "a/b:1@sha256:12", "a/b;rm -rf /", "ä/b:1"]
)
def test_what_is_no_image_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"image x: .* may be <registry>/<repository>:<tag>.*\.sqsh"):
        images.resolve("x", {"x": text})


def test_a_pinned_digest_reaches_docker_and_not_enroot() -> None:
    image = images.resolve("x", {"x": f"nvcr.io/nvidia/nemo:26.02@{DIGEST}"})
    assert images.docker_reference(image) == f"nvcr.io/nvidia/nemo:26.02@{DIGEST}"
    assert images.enroot_reference(image) == "nvcr.io#nvidia/nemo:26.02"
    file = images.resolve("x", {"x": "/a/b.sqsh"})
    assert images.enroot_reference(file) == "/a/b.sqsh"
    with pytest.raises(ValueError, match=r"image x is the file /a/b\.sqsh, and docker"):
        images.docker_reference(file)
    assert images.enroot_reference(Image("x", "localhost:5000/a/b:1")) == "localhost:5000#a/b:1"
    assert images.enroot_reference(Image("x", "team/b:1")) == "team/b:1", "of the default registry"


def test_a_digest_in_images_yaml_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"reference": "nvcr.io/nvidia/nemo:1", "digest": DIGEST}
    monkeypatch.setattr(images, "read", lambda: {"images": {"nemo": entry}})
    assert images.resolve("nemo", {}) == Image("nemo", "nvcr.io/nvidia/nemo:1", DIGEST)


def test_an_unknown_name_lists_those_there_are(tmp_path: Path) -> None:
    stage = bare_stage(tmp_path, Process("main", ["python"]), resources=Resources(image="nmeo"))
    with pytest.raises(ValueError, match=r"stages\.fake\.resources\.image='nmeo': .* base, mine, nemo, "):
        images.of_stage(stage, {"mine": "a/b:1"})


def test_a_server_in_another_kinds_image_is_refused(tmp_path: Path) -> None:
    stage = bare_stage(tmp_path, Process("s", ["python"], service=True), resources=Resources(image="trtllm"))
    stage.tasks[0].module.Config = Served
    stage.tasks[0].content["server"] = {"kind": "vllm"}
    with pytest.raises(ValueError, match=r"its server is vllm; use stages\.fake\.resources\.image=vllm"):
        images.of_stage(stage, {})
    stage.tasks[0].content["server"] = {"kind": "trtllm"}
    assert images.of_stage(stage, {}).name == "trtllm"
