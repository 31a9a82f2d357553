"""System calls that a session may not make: they hold memory that no limit counts, lead out of its namespaces or to other
sessions, or are seldom-tried kernel code."""

import ctypes
import errno
import platform
import struct

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # BPF: ld [k], jeq k, jge k, ret k
NUMBER_OFFSET, ARCHITECTURE_OFFSET, ARGUMENTS_OFFSET = 0, 4, 16  # in struct seccomp_data
X32 = 0x40000000  # the other calling convention of x86_64 numbers its calls from here

AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# name: number on x86_64, on aarch64, None where it has no such call (asm/unistd_64.h, asm-generic/unistd.h)
REFUSED = {
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "ptrace": (101, 117),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # on files that all sessions read, these tell one what another does
    "flock": (73, 32),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
}
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
FAMILIES = (AF_UNIX, AF_INET, AF_INET6)
"""The others, such as AF_VSOCK, need not have been parted from the host by the network namespace."""
SOL_SOCKET = 1
BUFFER_SIZES = (7, 8, 32, 33)  # SO_SNDBUF, SO_RCVBUF, and both with FORCE
LOCKS = (6, 7, 37, 38, 1026)  # F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW, and F_NOTIFY

Line = tuple[int, int, int, int]
Condition = tuple[int, tuple[int, ...], bool]
"""Number of an argument, values, and whether these (True) or all others (False) are meant."""
# what is refused when all its conditions hold
REFUSED_WITH: list[tuple[tuple[int, int], list[Condition]]] = [
    ((41, 198), [(0, FAMILIES, False)]),  # socket
    ((53, 199), [(0, FAMILIES, False)]),  # socketpair
    ((54, 208), [(1, (SOL_SOCKET,), True), (2, BUFFER_SIZES, True)]),  # setsockopt
    ((72, 25), [(1, LOCKS, True)]),  # fcntl
]


def program(machine: str) -> bytes:
    """The filter's instructions: refuse calls of another architecture and the named ones, allow the rest."""
    column = 0 if machine == "x86_64" else 1
    lines: list[Line] = [(LOAD, 0, 0, ARCHITECTURE_OFFSET), (EQUAL, 1, 0, AUDIT_ARCHITECTURE[machine])]
    lines += [(RETURN, 0, 0, REFUSE), (LOAD, 0, 0, NUMBER_OFFSET), (AT_LEAST, 0, 1, X32), (RETURN, 0, 0, REFUSE)]
    for numbers in REFUSED.values():
        if (number := numbers[column]) is not None:
            lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, REFUSE)]
    for pair, conditions in REFUSED_WITH:
        checks = _refuse_if(conditions)
        lines += [(EQUAL, 0, len(checks), pair[column]), *checks]
    lines.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def _refuse_if(conditions: list[Condition]) -> list[Line]:
    """Ends the filter. The kernel takes these arguments as 32-bit numbers, and so do we: their lower half."""
    lines: list[Line] = [(RETURN, 0, 0, REFUSE), (RETURN, 0, 0, ALLOW)]
    for argument, values, these in reversed(conditions):
        count = len(values)  # `lines` begins with what happens when the condition holds and ends with the allowance
        to_next, to_allowance = 0, len(lines) - 1
        jumps = []
        for i, value in enumerate(values):
            rest = count - 1 - i
            found = rest + (to_next if these else to_allowance)
            other = 0 if rest else (to_allowance if these else to_next)
            jumps.append((EQUAL, found, other, value))
        lines = [(LOAD, 0, 0, ARGUMENTS_OFFSET + 8 * argument), *jumps, *lines]
    return lines


def install() -> None:
    """Install the filter for this process and all it starts; PR_SET_NO_NEW_PRIVS must be set.

    Raises:
        OSError: the kernel has no seccomp, or the machine's system calls are not listed here.
    """
    machine = platform.machine()
    if machine not in AUDIT_ARCHITECTURE:
        raise OSError(errno.ENOSYS, f"the system calls to refuse are known for x86_64 and aarch64, not for {machine}")
    code = ctypes.create_string_buffer(program(machine), len(program(machine)))
    header = struct.pack("HxxxxxxP", len(program(machine)) // 8, ctypes.addressof(code))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")
