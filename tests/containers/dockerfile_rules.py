"""What every Dockerfile here must be, as functions that say what is wrong; test_dockerfiles.py shows each one a bad file."""

import re
from collections.abc import Callable
from dataclasses import dataclass

CODE_FREE = {"requirements.lock", "containers/add_missing.py"}
"""What a COPY may bring before the layers that install: it changes when these layers have to be made again anyway."""
INSTALLS = re.compile(r"\b(apt-get|apt|pip|uv|conda|npm|add_missing\.py|useradd|adduser|make|curl|wget)\b")
SECRET = re.compile(r"(?i)(token|secret|password|passwd|api_?key|credential)")


@dataclass(frozen=True)
class Instruction:
    name: str
    value: str


def parse(text: str) -> list[Instruction]:
    """Without comments, continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        Instruction(name, value.strip()) for name, _, value in (line.partition(" ") for line in joined.splitlines())
    ]


def values(instructions: list[Instruction], name: str) -> list[str]:
    return [each.value for each in instructions if each.name == name]


def from_a_pinned_argument(instructions: list[Instruction]) -> str | None:
    """The tag stands in images.yaml and nowhere else, so BASE has no default."""
    if values(instructions, "FROM") != ["${BASE}"] or "BASE" not in values(instructions, "ARG"):
        return "FROM ${BASE} once, with ARG BASE and no default: the reference stands in images.yaml"
    return None


def no_latest(instructions: list[Instruction]) -> str | None:
    return next((f"{each.value}: latest" for each in instructions if re.search(r":latest\b", each.value)), None)


def ends_without_root(instructions: list[Instruction]) -> str | None:
    users = values(instructions, "USER")
    return None if users and not re.match(r"(root|0)\b", users[-1]) else "the last USER must not be root"


def apt_lists_removed(instructions: list[Instruction]) -> str | None:
    for run in values(instructions, "RUN"):
        if "apt-get" in run and ("rm -rf /var/lib/apt/lists/*" not in run or "--no-install-recommends" not in run):
            return f"{run}: --no-install-recommends, and rm -rf /var/lib/apt/lists/* in the same layer"
    return None


def code_last(instructions: list[Instruction]) -> str | None:
    """A changed line of code must not install everything again."""
    copied = False
    for each in instructions:
        if each.name in ("COPY", "ADD") and not set(each.value.split()[:-1]) <= CODE_FREE:
            copied = True
        elif copied and each.name == "RUN" and INSTALLS.search(each.value):
            return f"{each.value}: it installs after the code was copied"
    return None if copied else "no COPY of the code"


def no_secrets(instructions: list[Instruction]) -> str | None:
    """Build arguments and variables stay in the image's history."""
    for each in instructions:
        if each.name in ("ARG", "ENV", "LABEL") and SECRET.search(each.value):
            return f"{each.name} {each.value}: it stays in the image's history"
    return None


def installs_are_pinned(instructions: list[Instruction]) -> str | None:
    for run in values(instructions, "RUN"):
        for command in re.split(r"&&|;|\|", run):
            if "pip install" in command and not re.search(
                r"--(requirement|constraint)[ =]|-[rc] |==|@[0-9a-f]{40}", command
            ):
                return f"{command.strip()}: --requirement or --constraint requirements.lock, or name==version"
    return None


def steps_fail_loudly(instructions: list[Instruction]) -> str | None:
    """`a; b` and `a | b` go on when a fails, unless the shell is told otherwise."""
    shell = next((value for value in values(instructions, "SHELL")), "")
    told = "errexit" in shell and "pipefail" in shell
    unsafe = [
        run for run in values(instructions, "RUN") if re.search(r";|\|(?!\|)", re.sub(r"\"[^\"]*\"|'[^']*'", "", run))
    ]
    return f"{unsafe[0]}: SHELL with errexit and pipefail first" if unsafe and not told else None


def nothing_fetched_by_add(instructions: list[Instruction]) -> str | None:
    return next((f"ADD {value}: use COPY" for value in values(instructions, "ADD")), None)


RULES: list[Callable[[list[Instruction]], str | None]] = [
    from_a_pinned_argument,
    no_latest,
    ends_without_root,
    apt_lists_removed,
    code_last,
    no_secrets,
    installs_are_pinned,
    steps_fail_loudly,
    nothing_fetched_by_add,
]
