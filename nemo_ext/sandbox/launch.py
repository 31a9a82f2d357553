"""Start the fork server: the argv for each isolation, and which of them works on this machine."""

import json
import logging
import os
import shutil
import sys
from pathlib import Path

from nemo_ext.sandbox.config import ISOLATIONS, SandboxConfig

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parent
CODE = PACKAGE.parent.parent
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
)
WRITABLE = "/tmp"  # noqa: S108  a tmpfs of each session's own
# numeric libraries start a thread per core otherwise, which the limit on processes would refuse
ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def candidates(config: SandboxConfig) -> list[str]:
    """The isolations to try, strongest first.

    Raises:
        ValueError: bubblewrap is asked for and not installed.
    """
    if config.isolation != "auto":
        if config.isolation == "bubblewrap" and shutil.which("bwrap") is None:
            raise ValueError("sandbox.isolation=bubblewrap: no `bwrap` on PATH; install the package bubblewrap")
        return [config.isolation]
    usable = [name for name in ISOLATIONS if name != "bubblewrap" or shutil.which("bwrap")]
    return usable if config.allow_unisolated else usable[:-1]


def readable(config: SandboxConfig) -> list[str]:
    """What sessions may read: the system, this Python and its packages, our own few modules. Outer folders first."""
    wanted = [*SYSTEM, sys.base_prefix, sys.prefix, sys.exec_prefix, str(CODE / "nemo_ext" / "__init__.py")]
    wanted += [str(PACKAGE), *(str(Path(path).resolve()) for path in config.readable)]
    wanted += [
        os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, sys.exec_prefix)
    ]  # .venv may be a link
    chosen: list[str] = []
    for path in sorted({path for path in wanted if os.path.lexists(path)}):
        if not any(path.startswith(f"{outer}/") and not os.path.islink(outer) for outer in chosen):
            chosen.append(path)
    return chosen


def command(isolation: str, config: SandboxConfig, channel_fd: int, scratch: str) -> list[str]:
    """argv of the fork server; `scratch` is where sessions work: WRITABLE, or without isolation a folder of the host."""
    visible = readable(config)
    settings = {
        "isolation": isolation,
        "code": str(CODE),
        "readable": [*visible, *(device for device in DEVICES if os.path.exists(device))],
        "preload": list(config.preload),
        "memory_mb": config.memory_mb,
        "scratch_mb": config.scratch_mb,
        "max_processes": config.max_processes,
        "scratch": scratch,
        "environment": ENVIRONMENT | {"HOME": scratch, "TMPDIR": scratch},
    }
    module = ["-s", "-P", "-m", "nemo_ext.sandbox.inside.fork_server", str(channel_fd), json.dumps(settings)]
    prefix = _bubblewrap(visible) if isolation == "bubblewrap" else []
    return [*prefix, sys.executable, *module]


def environment() -> dict[str, str]:
    """The fork server's: nothing of ours, so that no secret can be inherited."""
    return ENVIRONMENT | {"PYTHONPATH": str(CODE)}


def _bubblewrap(visible: list[str]) -> list[str]:
    """Namespaces, `visible` read-only, a few devices. Real root needs no user namespace, and must do without one: the
    fork server then becomes an unprivileged user, to whom the limit on processes applies."""
    argv = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
    argv += ["--new-session"] if os.getuid() == 0 else ["--new-session", "--unshare-user"]
    folders = {str(parent) for path in visible for parent in Path(path).parents} | {"/dev", "/dev/shm", WRITABLE}  # noqa: S108
    for folder in sorted(folders - {"/"}):
        argv += ["--perms", "0755", "--dir", folder]
    for path in visible:
        argv += ["--symlink", os.readlink(path), path] if os.path.islink(path) else ["--ro-bind", path, path]
    for device in DEVICES:
        argv += ["--dev-bind-try", device, device]
    return [*argv, "--proc", "/proc", "--remount-ro", "/", "--chdir", "/"]
