"""An sshd of a test's own on 127.0.0.1, with its own host key, letting in one key of its own."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized
PidFile {folder}/pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
LogLevel VERBOSE
"""
START_S = 60
PORTS_TRIED = 5


def missing() -> str:
    """Why there can be none here; empty: there can."""
    programs = [name for name in ("ssh", "ssh-keygen", "rsync") if shutil.which(name) is None]
    programs += [] if sshd() else ["sshd"]
    if programs:
        return f"no {', '.join(programs)} here: apt-get install openssh-server openssh-client rsync"
    return "" if os.geteuid() == 0 else "sshd needs root"


def sshd() -> str | None:
    return shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def started(folder: Path) -> Iterator[list[str]]:
    """The options with which ssh gets in; its log is <folder>/log."""
    Path("/run/sshd").mkdir(exist_ok=True)
    for key in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True, timeout=20)
    shutil.copy(folder / "key.pub", folder / "authorized")
    port, server = next(found for _ in range(PORTS_TRIED) if (found := _start(folder)))
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    try:
        options = ["-p", str(port), "-l", getpass.getuser(), "-i", str(folder / "key"), "-F", "none"]
        yield [*options, "-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "IdentitiesOnly=yes"]
    finally:
        server.terminate()
        server.wait(START_S)


def _start(folder: Path) -> "tuple[int, subprocess.Popen[bytes]] | None":
    """A server and its port; None where another program has taken the port meanwhile."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "config").write_text(CONFIG.format(port=port, folder=folder))
    program, log = sshd(), folder / "log"
    assert program is not None, "asked for before"
    log.unlink(missing_ok=True)
    server = subprocess.Popen([program, "-D", "-f", folder / "config", "-E", log])
    deadline = time.monotonic() + START_S
    while not log.exists() or "Server listening on" not in log.read_text():
        if server.poll() is not None:
            assert log.exists() and "Address already in use" in log.read_text(), "sshd does not start"
            return None
        assert time.monotonic() < deadline, "sshd does not answer"
        time.sleep(0.05)
    return port, server
