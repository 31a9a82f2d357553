"""The Dockerfiles keep the rules of dockerfile_rules.py, and each rule sees the file that breaks it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from launchers.planning import images
from tests.conftest import ROOT
from tests.containers import dockerfile_rules as rules
from tests.containers.dockerfile_rules import RULES, Instruction, parse

FILES = sorted((ROOT / "containers").glob("*.Dockerfile"))
GOOD = """ARG BASE
FROM ${BASE}
RUN apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/*
COPY requirements.lock ./
RUN pip install --requirement requirements.lock
COPY . ./
USER 1000
"""


def test_there_are_the_ones_that_are_built() -> None:
    built = {build.get("dockerfile", name) for name, build in images.read()["builds"].items()}
    assert {path.stem for path in FILES} == built >= {"train", "serve", "sandbox", "cpu"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_keeps_the_rule(path: Path, rule: Callable[[list[Instruction]], str | None]) -> None:
    assert rule(parse(path.read_text())) is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_argument_has_a_default_or_comes_from_images_yaml(path: Path) -> None:
    for name, build in images.read()["builds"].items():
        if build.get("dockerfile", name) == path.stem:
            arguments = rules.values(parse(path.read_text()), "ARG")
            bare = {argument for argument in arguments if "=" not in argument}
            assert bare == {"BASE", *build.get("args", {})}, "an argument that nothing sets is empty"


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        (rules.from_a_pinned_argument, "FROM ${BASE}", "FROM python:3.11-slim"),
        (rules.from_a_pinned_argument, "ARG BASE", "ARG BASE=python:3.11-slim"),
        (rules.no_latest, "COPY . ./", "COPY --from=ghcr.io/astral-sh/uv:latest /uv /bin/"),
        (rules.ends_without_root, "USER 1000", ""),
        (rules.ends_without_root, "USER 1000", "USER root"),
        (rules.ends_without_root, "USER 1000", "USER 1000\nUSER 0:0"),
        (rules.apt_lists_removed, " && rm -rf /var/lib/apt/lists/*", ""),
        (rules.apt_lists_removed, " --no-install-recommends", ""),
        (rules.code_last, "COPY requirements.lock ./", "COPY . ./"),
        (rules.code_last, "USER 1000", "RUN pip install --requirement requirements.lock\nUSER 1000"),
        (rules.code_last, "COPY . ./", ""),
        (rules.no_secrets, "ARG BASE", "ARG BASE\nARG HF_TOKEN"),
        (rules.no_secrets, "USER 1000", "ENV NGC_API_KEY=x\nUSER 1000"),
        (rules.installs_are_pinned, "--requirement requirements.lock", "numpy"),
        (
            rules.installs_are_pinned,
            "--requirement requirements.lock",
            "--upgrade pip && pip install -r requirements.lock",
        ),
        (rules.steps_fail_loudly, " && rm", "; rm"),
        (rules.steps_fail_loudly, "RUN pip", "RUN curl https://example.org/x | sh && pip"),
        (rules.nothing_fetched_by_add, "COPY . ./", "ADD https://example.org/x.tar /x"),
    ],
)
def test_rule_sees_what_breaks_it(rule: Callable[[list[Instruction]], str | None], old: str, new: str) -> None:
    assert rule(parse(GOOD)) is None
    assert old in GOOD
    assert rule(parse(GOOD.replace(old, new))) is not None


def test_every_rule_is_shown_a_bad_file() -> None:
    (mark,) = [mark for mark in test_rule_sees_what_breaks_it.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    assert {case[0] for case in mark.args[1]} == set(RULES)


def test_continued_lines_are_one_instruction() -> None:
    assert parse("# a\nRUN a \\\n  && b\nUSER 1\n") == [Instruction("RUN", "a  && b"), Instruction("USER", "1")]
