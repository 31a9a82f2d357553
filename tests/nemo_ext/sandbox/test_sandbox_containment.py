"""What must be contained, in every isolation, with the real kernel."""

import json
import os
import shutil
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from nemo_ext.sandbox.launch import CODE
from tests.nemo_ext.sandbox.conftest import SECRET, SMALL, Service, possible, sleeping, start_service, stop, wait_until


def still_works(sandbox: Service, session: str) -> None:
    assert sandbox.execute("6 * 7", session)["output"] == "42\n"


def test_says_which_isolation_is_active(sandbox: Service) -> None:
    assert sandbox.health["isolation"] in ("bubblewrap", "namespaces")
    assert f"isolation: {sandbox.health['isolation']}" in sandbox.log.read_text()


def test_fork_bomb(sandbox: Service) -> None:
    before = len(sandbox.descendants)
    reply = sandbox.execute("import os\nwhile True: os.fork()", "bomb")
    assert (reply["class"], reply["lost"]) == ("process_limit", False)
    assert reply["output"].count("BlockingIOError") == 1, "the bomb's processes are silent"
    still_works(sandbox, "bomb")
    wait_until(lambda: len(sandbox.descendants) <= before + 1)


def test_fork_bomb_of_a_shell_ends_with_its_block(sandbox: Service) -> None:
    code = "import subprocess\nsubprocess.run(['bash', '-c', 'bomb() { bomb | bomb & }; bomb; sleep 0.3'])"
    before = len(sandbox.descendants)
    reply = sandbox.execute(code, "shell", timeout_s=3)
    assert reply["class"] in ("ok", "timeout")
    assert "Resource temporarily unavailable" in reply["output"]
    still_works(sandbox, "shell")
    wait_until(lambda: len(sandbox.descendants) <= before + 1)


def test_too_many_threads(sandbox: Service) -> None:
    code = "import threading, time\nfor _ in range(99): threading.Thread(target=time.sleep, args=(60,)).start()"
    assert sandbox.execute(code, "threads")["class"] == "process_limit"
    still_works(sandbox, "threads")


def test_100_gb_allocation(sandbox: Service) -> None:
    session = uuid.uuid4().hex
    sandbox.execute("kept = 6", session)
    reply = sandbox.execute("x = bytearray(100 * 2**30)", session)
    assert (reply["class"], reply["lost"]) == ("memory", False)
    assert reply["output"].endswith("MemoryError\n")
    assert sandbox.execute("kept", session)["output"] == "6\n"


def test_memory_of_all_processes_together(sandbox: Service) -> None:
    """Each of them stays below the limit of one."""
    code = (
        "import os, time\nfor _ in range(6):\n    if os.fork() == 0: break\nx = bytearray(100 * 2**20)\ntime.sleep(60)"
    )
    reply = sandbox.execute(code, "together")
    assert (reply["class"], reply["lost"]) == ("memory", True)
    assert "256 MB" in reply["message"]
    still_works(sandbox, "together")


def test_memory_shared_by_forked_processes_counts_once(sandbox: Service) -> None:
    """10 processes that all see the same 150 MB hold 150 MB, not 1.5 GB."""
    code = "import os, time\nx = b'x' * (150 * 2**20)\nfor _ in range(9):\n    if os.fork() == 0: time.sleep(60)\ntime.sleep(0.5)"
    reply = sandbox.execute(code, "shared")
    assert (reply["class"], reply["lost"]) == ("ok", False)


def test_infinite_loop(sandbox: Service) -> None:
    reply = sandbox.execute("import time\nprint('begun')\nwhile True: time.sleep(0.01)", "loop", timeout_s=2)
    assert (reply["class"], reply["output"], reply["lost"]) == ("timeout", "begun\n", True)
    assert "2 s" in reply["message"]
    still_works(sandbox, "loop")


def test_a_loop_that_catches_everything(sandbox: Service) -> None:
    code = "import signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True:\n    try: raise ValueError\n    except BaseException: pass"
    assert sandbox.execute(code, timeout_s=0.5)["class"] == "timeout"


@pytest.mark.parametrize(
    "code", ["while True: print('y' * 50)", "while True: print('y', end='')", "import os\nos.system('yes')"]
)
def test_infinite_print(sandbox: Service, code: str) -> None:
    reply = sandbox.execute(code, "print")
    assert (reply["class"], reply["truncated"], reply["lost"]) == ("output_limit", True, True)
    assert len(json.dumps(reply)) < 600_000
    still_works(sandbox, "print")


def test_open_socket(sandbox: Service) -> None:
    port = int(sandbox.url.rpartition(":")[2])
    for address in (f"('127.0.0.1', {port})", "('192.0.2.1', 80)"):
        reply = sandbox.execute(f"import socket\nsocket.create_connection({address}, timeout=5)")
        assert (reply["class"], reply["output"].splitlines()[-1]) == (
            "error",
            "OSError: [Errno 101] Network is unreachable",
        )
    interfaces = (
        "import socket\nfound = []\nfor i in range(1, 200):\n    try: found.append(socket.if_indextoname(i))\n"
        "    except OSError: pass\nfound"
    )
    assert sandbox.execute(interfaces)["output"] in ("['lo']\n", "[]\n")


def test_sessions_do_not_reach_each_other_by_sockets(sandbox: Service) -> None:
    listen = "import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0meet')\ns.listen()"
    assert sandbox.execute(listen, "listener")["class"] == "ok"
    reply = sandbox.execute("import socket\nsocket.socket(socket.AF_UNIX).connect('\\0meet')")
    assert reply["output"].endswith("ConnectionRefusedError: [Errno 111] Connection refused\n")


def test_read_outside_the_scratch(sandbox: Service) -> None:
    sandbox.execute("open('mine', 'w').write('private')", "owner")
    assert sandbox.execute("open('/tmp/mine').read()", "owner")["output"] == "'private'\n"
    for path in (
        "/tmp/mine",
        "/etc/passwd",
        "/etc/shadow",
        str(CODE / "README.md"),
        str(sandbox.log),
        "/proc/1/environ",
    ):
        reply = sandbox.execute(f"open({path!r}).read()")
        assert reply["class"] == "error", path
        assert "FileNotFoundError" in reply["output"], path


@pytest.mark.parametrize("isolation", ["bubblewrap", "namespaces"])
def test_readable_folders_below_tmp(tmp_path: Path, isolation: str) -> None:
    """As a Python installed there is: a session's own /tmp lies over the host's, and must not hide it."""
    if isolation not in possible():
        pytest.skip(f"no {isolation} here")
    folder = tmp_path / "lib"
    folder.mkdir()
    (folder / "data.txt").write_text("shown")
    (tmp_path / "other.txt").write_text("not shown")
    place = Path("/tmp") / f"readable-{os.getpid()}-{isolation}"
    shutil.copytree(folder, place)
    service = start_service(tmp_path, isolation=isolation, readable=[str(place)], preload=[])
    try:
        assert service.execute(f"open('{place}/data.txt').read()")["output"] == "'shown'\n"
        assert "Read-only file system" in service.execute(f"open('{place}/new', 'w')")["output"]
        assert service.execute("open('/tmp/own', 'w').write('x')")["class"] == "ok"
        assert "FileNotFoundError" in service.execute(f"open('{tmp_path}/other.txt')")["output"]
    finally:
        stop(service)
        shutil.rmtree(place)


def test_sees_nothing_of_the_host(sandbox: Service) -> None:
    code = "import os\nprint(os.environ, os.listdir('/proc'), os.listdir('/tmp'), os.listdir('/dev/shm'), os.getpid())"
    seen = sandbox.execute(code)["output"]
    assert SECRET not in seen
    # but the folders on the way to a Python that is installed below /tmp
    shown = sorted({Path(p).parts[2] for p in (sys.prefix, sys.base_prefix, str(CODE)) if p.startswith("/tmp/")})
    assert seen.endswith(f"[] {shown} [] 1\n")
    assert sandbox.execute("import os\nos.listdir('/var')")["class"] == "error"
    root = sandbox.execute("import os\nos.getuid(), os.geteuid(), os.getgroups()")["output"]
    assert root.startswith("(1000, 1000, [")


def test_no_process_of_the_sandbox_has_our_environment(sandbox: Service) -> None:
    """Not only os.environ: a forked process keeps the memory of its parent's."""
    sandbox.execute("1", "environment")
    seen = []
    for process in psutil.Process(sandbox.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # of an earlier test, and just ended
            seen.append(process.environ())
    assert len(seen) >= 2
    assert not [environment for environment in seen if SECRET in environment.values()]


def test_write_outside_the_scratch(sandbox: Service) -> None:
    for path in ("/written", "/usr/written", "/dev/written", str(CODE / "nemo_ext" / "sandbox" / "written")):
        reply = sandbox.execute(f"open({path!r}, 'w')")
        assert reply["output"].splitlines()[-1].startswith("OSError: [Errno 30] Read-only file system"), path


def test_the_scratch_is_bounded(sandbox: Service) -> None:
    code = "for i in range(99): open(f'{folder}/{i}', 'wb').write(bytes(2**20))"
    for folder in ("/tmp", "/dev/shm"):
        reply = sandbox.execute(f"folder = {folder!r}\n{code}")
        assert reply["output"].splitlines()[-1].startswith("OSError: [Errno 28] No space left on device")
    assert "File too large" in sandbox.execute("open('x', 'wb').write(bytes(9 * 2**20))")["output"]


@pytest.mark.parametrize(
    "code", ["import os\nos._exit(3)", "import ctypes\nctypes.string_at(0)", "import os\nos.closerange(3, 64)"]
)
def test_end_of_the_interpreter(sandbox: Service, code: str) -> None:
    session = uuid.uuid4().hex
    reply = sandbox.execute("print('before')\n" + code, session)
    assert (reply["class"], reply["output"], reply["lost"]) == ("died", "before\n", True)
    still_works(sandbox, session)


def test_deep_recursion(sandbox: Service) -> None:
    reply = sandbox.execute("def f(n): return f(n + 1)\nf(0)", "deep")
    assert (reply["class"], reply["lost"]) == ("error", False)
    assert "more times]\nRecursionError: maximum recursion depth exceeded" in reply["output"]
    reply = sandbox.execute("import sys\nsys.setrecursionlimit(10**9)\nf(0)", "deep")
    assert reply["class"] in ("memory", "died")
    still_works(sandbox, "deep")
    assert sandbox.execute("(" * 5000)["class"] == "syntax_error"
    assert sandbox.execute("-" * 50000 + "1")["class"] in ("memory", "syntax_error", "died", "error")


def test_binary_output(sandbox: Service) -> None:
    reply = sandbox.execute("import os\nn = os.write(1, bytes(range(256)))\nprint('\\udc80')")
    assert reply["class"] == "ok"
    assert reply["output"].startswith("\ufffd" * 9 + "\t\n" + "\ufffd" * 21 + " !")
    assert reply["output"].endswith("\\udc80\n")


def test_cannot_end_or_stop_the_service(sandbox: Service) -> None:
    ours = [sandbox.process.pid, *sandbox.descendants]
    code = f"import os\nfor pid in (1, {', '.join(map(str, ours))}, -1):\n    try: os.kill(pid, 9)\n    except OSError as e: print(e.errno)"
    reply = sandbox.execute(code)
    assert reply["class"] == "ok"
    assert set(reply["output"].split()) == {"3"}, "no such process"
    assert sandbox.process.poll() is None


def test_cannot_make_namespaces_or_mounts(sandbox: Service) -> None:
    """A new user namespace would have capabilities in it, and with them the kernel's less tried code."""
    reply = sandbox.execute(
        "import ctypes\nlibc = ctypes.CDLL(None)\n[libc.unshare(0x10000000), libc.umount2(b'/proc', 2), libc.mount(b'n', b'/tmp', b'tmpfs', 0, None)]"
    )
    assert reply["output"] == "[-1, -1, -1]\n"


def test_calls_that_hold_uncounted_memory_are_refused(sandbox: Service) -> None:
    code = "import os, ctypes\nprint(ctypes.CDLL(None).shmget(0, 4096, 0o1600), ctypes.CDLL(None).ptrace(0, 0, 0, 0))\nos.memfd_create('x')"
    reply = sandbox.execute(code)
    assert reply["output"].startswith("-1 -1\n")
    assert reply["output"].endswith("PermissionError: [Errno 1] Operation not permitted\n")
    shared = "from multiprocessing.shared_memory import SharedMemory\nm = SharedMemory(create=True, size=4096)\nm.size"
    assert sandbox.execute(shared)["output"] == "4096\n", "POSIX shared memory is a bounded file"


def test_processes_end_with_their_block(sandbox: Service) -> None:
    code = "import subprocess\np = subprocess.Popen(['setsid', 'sleep', '60'])\nq = subprocess.Popen('sleep 61 & sleep 62', shell=True)"
    sandbox.execute(code, "background")
    assert sandbox.execute("p.poll() is not None and q.poll() is not None", "background")["output"] == "True\n"
    wait_until(lambda: not sleeping(sandbox.process.pid))


def test_threads_stand_still_between_blocks(sandbox: Service) -> None:
    code = "import threading, time\nseen = [time.monotonic()]\ndef watch():\n    while True: seen.append(time.monotonic()); time.sleep(0.01)\nthreading.Thread(target=watch, daemon=True).start()"
    sandbox.execute(code, "still")
    time.sleep(0.6)
    reply = sandbox.execute("time.sleep(0.1)\nmax(b - a for a, b in zip(seen, seen[1:])) > 0.5", "still")
    assert reply["output"] == "True\n"


def test_a_forged_reply_fools_only_its_own_session(sandbox: Service) -> None:
    for forged in ('{"class": "nonsense"}', "x", '{"class": ["ok"]}', "[]"):
        code = f"import os, time\nos.write(11, {forged!r}.encode())\ntime.sleep(60)"
        assert sandbox.execute(code, "forger")["class"] == "died"
    still_works(sandbox, "forger")


def test_limits_are_those_of_the_config(sandbox: Service) -> None:
    assert {name: sandbox.health["limits"][name] for name in SMALL} == SMALL
