"""System calls that a session may not make: they hold memory that no limit counts, or are seldom-tried kernel code."""

import ctypes
import errno
import platform
import struct

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # BPF: ld [k], jeq k, jge k, ret k
NUMBER_OFFSET, ARCHITECTURE_OFFSET = 0, 4  # in struct seccomp_data
X32 = 0x40000000  # the other calling convention of x86_64 numbers its calls from here

AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# name: number on x86_64, on aarch64 (asm/unistd_64.h, asm-generic/unistd.h)
REFUSED = {
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "io_uring_setup": (425, 425),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "ptrace": (101, 117),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}


def program(machine: str) -> bytes:
    """The filter's instructions: refuse calls of another architecture and the named ones, allow the rest."""
    numbers = [pair[0 if machine == "x86_64" else 1] for pair in REFUSED.values()]
    lines = [(LOAD, 0, 0, ARCHITECTURE_OFFSET), (EQUAL, 1, 0, AUDIT_ARCHITECTURE[machine]), (RETURN, 0, 0, REFUSE)]
    lines.append((LOAD, 0, 0, NUMBER_OFFSET))
    count = len(numbers)
    lines.append((AT_LEAST, count + 1, 0, X32))  # to the refusal after the allowance
    lines += [(EQUAL, count - i, 0, number) for i, number in enumerate(numbers)]
    lines += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def install() -> None:
    """For this process and all it starts; PR_SET_NO_NEW_PRIVS must be set. Nothing on another architecture.

    Raises:
        OSError: the kernel has no seccomp.
    """
    machine = platform.machine()
    if machine not in AUDIT_ARCHITECTURE:
        return
    code = ctypes.create_string_buffer(program(machine), len(program(machine)))
    header = struct.pack("HxxxxxxP", len(program(machine)) // 8, ctypes.addressof(code))  # struct sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")
