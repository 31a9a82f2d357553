"""Inside an image: install the packages that it lacks, and touch none that it carries.

    python3 add_missing.py requirements.lock ["nemo_skills @ git+https://...@<commit>" ...]

Of every `name==version` line and every further requirement, what is not installed is installed, without dependencies: the
lock names those too, and an image's own torch, numpy or transformers, which it was built against, must stay as they are.
Standard library only.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def requirements(lock: Path, more: list[str]) -> dict[str, str]:
    """Package -> what pip is asked for.

    Raises:
        ValueError: a line that pins no version.
    """
    found = {}
    for line in [*lock.read_text().splitlines(), *more]:
        text = line.partition(" #")[0].strip()
        if not text or text.startswith("#"):
            continue
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(==\s*[0-9]|@\s*git\+https://\S+@[0-9a-f]{40}$)", text)
        if match is None:
            raise ValueError(
                f"{text!r} pins no version: write name==version, or name @ git+https://<url>@<40 hex digits>"
            )
        found[match[1]] = text
    return found


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def installer() -> list[str]:
    """pip, or uv where the environment was made by it and has no pip.

    Raises:
        ValueError: neither is there.
    """
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--no-deps"]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable, "--no-cache", "--no-deps"]
    raise ValueError(f"{sys.executable} has no pip, and there is no uv on PATH")


def main(argv: list[str]) -> int:
    if len(argv) < 2:
        print("usage: python3 add_missing.py requirements.lock [requirement ...]", file=sys.stderr)
        return 2
    try:
        wanted = requirements(Path(argv[1]), argv[2:])
        carried = {package: found for package in wanted if (found := installed(package))}
        missing = [text for package, text in wanted.items() if package not in carried]
        for package, found in carried.items():
            print(
                f"carried: {package} {found}"
                + ("" if wanted[package].endswith(f"=={found}") else f" ({wanted[package]})")
            )
        if not missing:
            return 0
        # an NGC image's constraints would refuse what it lacks in another version than it once had
        env = {key: value for key, value in os.environ.items() if key not in ("PIP_CONSTRAINT", "UV_CONSTRAINT")}
        return subprocess.run([*installer(), *missing], env=env, check=False).returncode
    except ValueError as error:
        print(f"add_missing.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
