"""A Docker daemon of one's own: private socket and storage, no networks, no rules in the machine's firewall."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_S = 60.0
HOST_FOLDERS = ("bin", "lib", "lib64")  # links into /usr; not sbin, where docker puts its init


@contextmanager
def docker_daemon() -> Iterator[dict[str, str]]:
    """Environment variables that lead the client to it; skips the test where none can be started."""
    if os.getuid() or not shutil.which("dockerd") or not shutil.which("docker"):
        pytest.skip("needs root, docker and dockerd (Debian's docker.io)")
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="docker-test-") as name:
        folder = Path(name)
        socket = f"unix://{folder}/socket"
        argv = [
            "dockerd",
            "--host",
            socket,
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
        ]
        argv += ["--ip-masq=false", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
        with (folder / "log").open("w") as log:
            daemon = subprocess.Popen([*argv, "--pidfile", f"{folder}/pid"], stdout=log, stderr=log)
        try:
            env = {"DOCKER_HOST": socket}
            if not answers(daemon, env):
                pytest.skip(f"dockerd does not start here: {(folder / 'log').read_text()[-300:]}")
            yield env
        finally:
            daemon.terminate()
            daemon.wait(60)
            # the daemon leaves it mounted, and what is mounted cannot be deleted
            subprocess.run(["umount", f"{folder}/exec/netns/default"], capture_output=True, check=False)


def answers(daemon: "subprocess.Popen[bytes]", env: dict[str, str]) -> bool:
    deadline = time.monotonic() + START_S
    while daemon.poll() is None and time.monotonic() < deadline:
        if subprocess.run(["docker", "info"], env={**os.environ, **env}, capture_output=True).returncode == 0:
            return True
        time.sleep(0.1)
    return False


def import_base(reference: str, env: dict[str, str]) -> None:
    """An image that borrows this machine's /usr, which has to be mounted: BORROWED says what else."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("tmp", "proc", "sys", "dev", "usr", "etc", "sbin"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        for folder in HOST_FOLDERS:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{folder}"
            tar.addfile(entry)
    argv = ["docker", "import", "--change", "ENV PATH=/usr/local/bin:/usr/bin:/bin", "-", reference]
    subprocess.run(argv, input=buffer.getvalue(), env={**os.environ, **env}, capture_output=True, check=True)


BORROWED = [
    "/usr:/usr:ro",
    *(f"{path}:{path}:ro" for path in {sys.prefix, sys.base_prefix} if not path.startswith("/usr")),
]
