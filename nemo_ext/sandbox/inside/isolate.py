"""Linux namespaces, mounts and limits by direct system calls; Python 3.11 has none of these.

A session gets its own user, process, mount, network, IPC and host-name namespaces: it sees only its own processes, no
network interface, no /proc, a read-only file system, and a bounded tmpfs at /tmp and /dev/shm.
"""

import ctypes
import os
import resource
import signal
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
ISOLATING = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
CAPABILITY_VERSION_3 = 0x20080522
NOBODY = 65534
SESSION_UID = 1000
MIB = 1 << 20
MAX_OPEN_FILES = 64
"""Per process. Each may be a socket whose unread bytes no limit counts: 208 KB by the kernel's default."""
PLACE_FOR_ROOT = "/sys"
"""Exists everywhere and is never shown, so the new root can be put together on it, in our mount namespace only."""

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    encoded = (text.encode() or None for text in (source, target, kind))
    try:
        _checked("mount", *encoded, ctypes.c_ulong(flags), data.encode() or None)
    except OSError as error:
        raise OSError(f"{source} at {target}: {error}") from error


def die_with_parent() -> None:
    """Cleared by the kernel when a process changes its user, so call it after that."""
    _checked("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def become_unprivileged() -> None:
    """Root would be exempt from the limit on processes, and could read what others may not."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        # a change of user makes a process undumpable, and its /proc/self/uid_map is then root's
        _checked("prctl", PR_SET_DUMPABLE, 1, 0, 0, 0)


def _new_user_namespace(other: int, inside_uid: int) -> None:
    uid, gid = os.getuid(), os.getgid()
    _checked("unshare", CLONE_NEWUSER | other)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside_uid} {uid} 1"),
        ("gid_map", f"{inside_uid} {gid} 1"),
    ):
        Path(f"/proc/self/{name}").write_text(text)


def enter_namespaces(readable: list[str]) -> None:
    """What bubblewrap does: returns in a child that is process 1 of new namespaces and sees only `readable`.

    The parent waits and ends as the child does.
    """
    root = PLACE_FOR_ROOT
    if os.getuid() == 0:
        _checked("unshare", ISOLATING)
    else:
        _new_user_namespace(ISOLATING, os.getuid())
    child = os.fork()
    if child:
        die_with_parent()
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    die_with_parent()
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("none", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755")
    for path in readable:
        _show(path, root)
    for folder in ("proc", "tmp", "dev/shm"):
        os.makedirs(f"{root}/{folder}", exist_ok=True)
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chdir(root)
    _checked("pivot_root", b".", b".")
    _checked("umount2", b".", MNT_DETACH)
    os.chdir("/")
    mount("none", "/", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _show(path: str, root: str) -> None:
    """Bind a file, folder or device read-only at the same place below `root`; copy a symbolic link."""
    target = root + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        Path(target).touch()
    mount(path, target, "", MS_BIND | MS_REC)
    kept = os.statvfs(path).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)  # may not be cleared in a user namespace
    if not path.startswith("/dev/"):
        mount("none", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | kept)


SCRATCH = ("/tmp", "/dev/shm")  # noqa: S108  the session's own


def enter_session(scratch_mb: int, readable: list[str]) -> None:
    """Returns in a process that is number 1 of its own namespaces, with all capabilities there still."""
    _new_user_namespace(ISOLATING, SESSION_UID)
    if os.fork():
        os._exit(0)
    # a Python installed below /tmp, as job-local environments are, must not vanish under the session's own
    hidden = [path for path in readable if path.startswith(tuple(f"{place}/" for place in SCRATCH))]
    held = {path: os.open(path, os.O_PATH) for path in hidden}
    for target in SCRATCH:
        mount("none", target, "tmpfs", MS_NOSUID | MS_NODEV, f"size={scratch_mb}m,nr_inodes=4096,mode=0700")
    for path, descriptor in held.items():
        _show_again(path, descriptor)
    for device in (path for path in readable if path.startswith("/dev/")):
        _keep_as_it_is(device)
    _try_write("/proc/self/oom_score_adj", "1000")  # when memory runs out, a session goes before the service
    _try_write("/proc/sys/user/max_user_namespaces", "0")
    mount("none", "/proc", "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k")


def _keep_as_it_is(device: str) -> None:
    """A device on a read-only mount is read and written as before, but its times and its mode do not change."""
    kept = os.statvfs(device).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("none", device, "", MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def _show_again(path: str, descriptor: int) -> None:
    """Bind what `descriptor` holds at `path`, which a mount has hidden; read-only as it was."""
    source = f"/proc/self/fd/{descriptor}"
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(path).touch()
    mount(source, path, "", MS_BIND | MS_REC)
    os.close(descriptor)


def _try_write(path: str, text: str) -> None:
    """A second line of defence that some containers do not allow."""
    try:
        Path(path).write_text(text)
    except OSError:
        return


def drop_capabilities() -> None:
    _checked("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    _checked("capset", header, (ctypes.c_uint32 * 6)())


def own_address_space() -> int:
    """Bytes mapped by this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def set_limits(address_space: int, file_size: int, processes: int | None) -> None:
    """Bytes, bytes, and a count of processes and threads, which the kernel keeps per user namespace (since 5.14)."""
    limits = {
        resource.RLIMIT_AS: address_space,
        resource.RLIMIT_FSIZE: file_size,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if processes is not None:
        limits[resource.RLIMIT_NPROC] = processes
    for which, limit in limits.items():
        hard = resource.getrlimit(which)[1]
        lower = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(which, (lower, lower))
