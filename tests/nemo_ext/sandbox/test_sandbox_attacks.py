"""Blocks that try to outlive their limits, to take what no limit counts, or to reach what is not theirs."""

import asyncio
import json
import socket
import time
import uuid

import pytest

from nemo_ext.sandbox.session import Session
from tests.nemo_ext.sandbox.conftest import Service, possible, sessions_of, wait_until

FORGED = 'os.write(11, b\'{"class": "ok"}\')'
HOLDING = """
import os, time
for _ in range(5):
    if os.fork() == 0:
        b = bytearray(40 << 20)
        b[::4096] = b'x' * len(b[::4096])
        time.sleep(60)
        os._exit(0)
"""
SPINNING = "import os\nfor _ in range(4):\n    if os.fork() == 0:\n        while True: pass\n"
THREAD = f"import os, threading, time\ndef lie():\n    if os.fork() == 0: time.sleep(60)\n    {FORGED}\nthreading.Thread(target=lie).start()\n"
# each process lives for a moment and starts the next, which looks at none of them in time would miss
CHAIN = "import os\nif os.fork() == 0:\n    while True:\n        if os.fork(): os._exit(0)\n"
EITHER = pytest.mark.parametrize("isolation", ["bubblewrap", "namespaces"])


def outcome(sandbox: Service, code: str) -> str:
    reply = sandbox.execute(code)
    return str(reply["output"]).strip().rpartition("\n")[2]


@pytest.mark.parametrize(
    "block", [HOLDING + FORGED, SPINNING + FORGED, THREAD, CHAIN + FORGED, HOLDING + f"if os.fork() == 0: {FORGED}"]
)
def test_a_forged_reply_sets_no_process_free(sandbox: Service, block: str) -> None:
    session, before = uuid.uuid4().hex, set(sandbox.descendants)
    reply = sandbox.execute(f"{block}\nimport time\ntime.sleep(60)", session)
    assert (reply["class"], reply["lost"]) == ("died", True)
    wait_until(lambda: set(sandbox.descendants) <= before, 20)
    assert sandbox.execute("6 * 7", session)["output"] == "42\n"


def test_a_second_reply_that_waits_is_seen() -> None:
    """It would end the next block before that has begun."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    session = Session(ours, -1, 1, None, {})
    with ours, theirs:
        assert session._silent()
        theirs.send(b'{"class": "ok"}')
        assert not session._silent()


def test_a_reply_that_breaks_the_parser_ends_the_session(sandbox: Service) -> None:
    size = sandbox.log.stat().st_size
    for forged in ("b'[' * 4000", "b'{\"class\": 1e999}'", "b'\\xff' * 4000", "b'9' * 4096", "b'{\"class\": {}}'"):
        reply = sandbox.execute(f"import os, time\nfor _ in range(50): os.write(11, {forged})\ntime.sleep(60)")
        assert (reply["class"], reply["lost"]) == ("died", True), forged
    assert "Traceback" not in sandbox.log.read_text()
    assert sandbox.log.stat().st_size - size < 2000


def test_a_session_that_runs_on_without_a_block_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a forged reply be believed all the same."""

    async def believed(session: Session) -> bool:
        return True

    monkeypatch.setattr(Session, "_stands_still", believed)

    async def run() -> None:
        async with sessions_of() as sessions:
            watch = asyncio.create_task(sessions.watch())
            result, _, _ = await sessions.execute("s", f"{HOLDING}{FORGED}\ntime.sleep(60)", 60, [])
            assert result.ended == "ok"
            started = time.monotonic()
            while sessions.alive:
                assert time.monotonic() - started < 60
                await asyncio.sleep(0.02)
            assert not sessions.forks.sessions
            assert (await sessions.execute("s", "1", 60, []))[1] == "lost"
            watch.cancel()

    asyncio.run(run())


def test_kernel_memory_that_no_limit_counts_is_refused(sandbox: Service) -> None:
    calls = "import ctypes, platform\nc = ctypes.CDLL(None).syscall\nx = platform.machine() == 'x86_64'\n"
    assert sandbox.execute(calls + "c(64 if x else 190, 0, 32000, 0o1000)")["output"] == "-1\n"
    for option in ("SO_SNDBUF", "SO_RCVBUF"):
        code = f"import socket\na, b = socket.socketpair()\na.setsockopt(socket.SOL_SOCKET, socket.{option}, 4 << 20)"
        assert outcome(sandbox, code) == "PermissionError: [Errno 1] Operation not permitted"
    locks = "import fcntl\nf = open('/tmp/x', 'w+')\nfcntl.lockf(f, fcntl.LOCK_EX)"
    assert outcome(sandbox, locks) == "PermissionError: [Errno 1] Operation not permitted"


def test_unread_bytes_of_sockets_are_bounded(sandbox: Service) -> None:
    """By the descriptors a process may have: what they hold is no process's memory."""
    code = """
import socket
held, pairs = 0, []
try:
    while True:
        pairs.append(socket.socketpair())
        pairs[-1][0].setblocking(False)
        try:
            while True: held += pairs[-1][0].send(bytes(65536))
        except BlockingIOError: pass
except OSError as error:
    print(error.errno)
len(pairs) <= 32, held < 64 << 20
"""
    assert sandbox.execute(code)["output"] == "24\n(True, True)\n"


def test_descriptors_in_flight_keep_no_other_session_from_starting(sandbox: Service) -> None:
    """They count per user, and all sessions are one."""
    code = """
import socket
pairs = [socket.socketpair() for _ in range(20)]
try:
    for a, b in pairs: socket.send_fds(a, [b'x'], [0] * 250)
except OSError as error:
    print(error.errno)
"""
    session = uuid.uuid4().hex
    assert sandbox.execute(code, session)["output"] == "109\n", "too many, for the session itself"
    for _ in range(3):
        assert sandbox.execute("6 * 7")["output"] == "42\n"
    sandbox.request("DELETE", f"/sessions/{session}")


def test_only_sockets_of_families_that_a_namespace_parts(sandbox: Service) -> None:
    """AF_VSOCK leads to the host, past the network namespace. The socket is made, or not, and never used."""
    for make in ("socket", "socketpair"):
        code = f"""
import ctypes, errno, socket
libc, pair = ctypes.CDLL(None, use_errno=True), (ctypes.c_int * 2)()
made = {{}}
for family in [40, *range(46)]:
    result = libc.{make}(family, socket.SOCK_DGRAM, 0, pair)
    made[family] = result >= 0 or errno.errorcode[ctypes.get_errno()]
    if {make == "socket"} and result >= 0: socket.close(result)
print({{family for family, how in made.items() if how not in ('EPERM', 'EAFNOSUPPORT')}} - {{1, 2, 10}})
made[40]
"""
        assert sandbox.execute(code)["output"].splitlines() == ["set()", "'EPERM'"]
    assert outcome(sandbox, "import socket\nsocket.socketpair()[0].family") == "<AddressFamily.AF_UNIX: 1>"


def test_sessions_tell_each_other_nothing_by_shared_files(sandbox: Service) -> None:
    for code in (
        "import fcntl\nfcntl.flock(open('/usr/bin/env'), fcntl.LOCK_EX)",
        "import fcntl\nfcntl.lockf(open('/usr/bin/env'), fcntl.LOCK_SH)",
        "import fcntl\nfcntl.fcntl(open('/dev/null'), 1026, 1)",
        "import os\nos.utime('/dev/null', (1, 1))",
        "import os\nos.utime('/dev/urandom')",
        "import os\nos.chmod('/dev/null', 0o600)",
    ):
        assert outcome(sandbox, code).startswith(("PermissionError: [Errno 1]", "OSError: [Errno 30]")), code
    for call in ("inotify_init()", "inotify_init1(0)"):
        assert sandbox.execute(f"import ctypes\nctypes.CDLL(None).{call}")["output"] == "-1\n"
    assert sandbox.execute("open('/dev/null', 'w').write('x'), open('/dev/zero', 'rb').read(1)")["class"] == "ok"


HOST_PATHS = (
    *("/proc/1/environ", "/proc/self/maps", "/proc/sys/kernel/hostname", "/sys/kernel", "/sys/fs/cgroup"),
    *("/var/log", "/var/lib", "/etc/passwd", "/etc/shadow", "/etc/hostname", "/etc/resolv.conf", "/run"),
    *("/dev/mem", "/dev/kmsg", "/dev/vsock", "/dev/fuse", "/dev/kvm", "/dev/sda", "/dev/tty", "/boot"),
)


def test_host_paths_are_not_there(sandbox: Service) -> None:
    code = f"import os\n[path for path in {HOST_PATHS!r} if os.path.lexists(path)]"
    assert sandbox.execute(code)["output"] == "[]\n"


def test_no_descriptor_leads_out(sandbox: Service) -> None:
    code = """
import os
found = {}
for fd in range(1024):
    try: found[fd] = oct(os.fstat(fd).st_mode >> 12)
    except OSError: pass
found
"""
    pipe, socket, device = "0o1", "0o14", "0o2"
    assert sandbox.execute(code)["output"] == f"{ {0: device, 1: pipe, 2: pipe, 10: pipe, 11: socket} }\n"


REFUSED = """
import ctypes, os, platform
libc, syscall = ctypes.CDLL(None, use_errno=True), ctypes.CDLL(None, use_errno=True).syscall
x86 = platform.machine() == 'x86_64'
numbers = {  # x86_64, aarch64, arguments
    'ptrace': (101, 117, 0, 0, 0, 0),
    'setns': (308, 268, 0, 0),
    'unshare user': (272, 97, 0x10000000),
    'clone3': (435, 435, 0, 0),
    'open_tree': (428, 428, -100, b'/', 1),
    'fsopen': (430, 430, b'tmpfs', 0),
    'move_mount': (429, 429, -100, b'/', -100, b'/tmp', 0),
    'chroot': (161, 51, b'/'),
    'pivot_root': (155, 41, b'.', b'.'),
    'bpf': (321, 280, 0, 0, 0),
    'userfaultfd': (323, 282, 0),
    'perf_event_open': (298, 241, 0, 0, 0, 0, 0),
    'io_uring_setup': (425, 425, 1, 0),
    'memfd_create': (319, 279, b'x', 0),
    'setuid': (105, 146, 0),
    'keyctl': (250, 219, 0, 0),
    'mknod': (259, 33, -100, b'/tmp/node', 0o20666, 0x103),
    'process_vm_readv': (310, 270, 2, 0, 0, 0, 0, 0),
}
print([name for name, (number, other, *arguments) in numbers.items() if syscall(number if x86 else other, *arguments) >= 0 and name != 'process_vm_readv'])
if x86:
    print(syscall(0x40000000 | 319, b'x', 0))  # memfd_create by the x32 convention
else:
    print(-1)
"""


def test_calls_that_lead_out_are_refused(sandbox: Service) -> None:
    assert sandbox.execute(REFUSED)["output"] == "[]\n-1\n"
    for code in ("os.link('/usr/bin/env', '/tmp/env')", "os.chmod('/usr/bin', 0o777)", "os.setresuid(0, 0, 0)"):
        assert sandbox.execute(f"import os\n{code}")["class"] == "error", code
    code = "import os\nos.symlink('/etc/shadow', '/tmp/link')\nopen('/tmp/link')"
    assert "FileNotFoundError" in sandbox.execute(code)["output"]


def test_a_session_that_abuses_itself_hurts_nobody_else(sandbox: Service) -> None:
    for code in (
        "import os, signal\nos.kill(-1, 9)",
        "import os, signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nos.kill(0, signal.SIGSTOP)",
        "import builtins\nbuiltins.print = builtins.repr = builtins.compile = None",
        "import os\nos.closerange(0, 1024)",
        "import sys\nsys.modules.clear()",
        "open('/tmp/a\\0b')",
        "[open(f'/tmp/{i}', 'w').close() for i in range(5000)]",
        "import os\npipes = []\nwhile True: pipes.append(os.pipe())",
        "exec('a = ' + '[' * 90 + ']' * 90)\n'9' * 10**7 + ''\n10**100000 % 7",
    ):
        sandbox.execute(code, timeout_s=5)
    assert sandbox.execute("6 * 7, print")["output"] == "(42, <built-in function print>)\n"
    assert sandbox.execute("import os\nos.listdir('/tmp')", uuid.uuid4().hex)["output"].count("[") == 1


def test_300_000_lines_are_shortened_in_the_middle(sandbox: Service) -> None:
    reply = sandbox.execute("for i in range(300_000): print(i)")
    assert (reply["class"], reply["lost"]) == ("output_limit", True)
    assert reply["output"].startswith("0\n1\n2\n")
    assert len(json.dumps(reply)) < 600_000


@EITHER
def test_nothing_of_a_session_is_left_to_the_next(isolation: str) -> None:
    if isolation not in possible():
        pytest.skip(f"no isolation by {isolation} on this machine")

    async def run() -> None:
        async with sessions_of(isolation=isolation) as sessions:
            write = "import sys, os\nfor f in ('/tmp', '/dev/shm'): open(f + '/left', 'w')\nos.environ['L'] = sys.left = '1'"
            assert (await sessions.execute("a", write, 60, []))[0].ended == "ok"
            sessions.delete("a")
            read = "import os, sys\nos.path.exists('/tmp/left'), os.path.exists('/dev/shm/left'), 'L' in os.environ, hasattr(sys, 'left')"
            assert (await sessions.execute("b", read, 60, []))[0].output == "(False, False, False, False)\n"

    asyncio.run(run())
