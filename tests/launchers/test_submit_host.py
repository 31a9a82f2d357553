"""Reaching the submit host: a real sshd on this machine where there is one, and what each thing that fails is called."""

import io
import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from launchers import cancel, logs, status
from launchers.here.display import Display
from launchers.submit_host import link as links
from launchers.submit_host import remote_run, tree
from launchers.submit_host.link import SshHost, connected
from launchers.submit_host.remote_run import RemoteRun
from launchers.submit_host.tree import Sent
from tests.composing import compose_recipe
from tests.conftest import ROOT
from tests.launchers import ssh_server
from tests.launchers.process_stages import wait_until

HERE = SshHost(host="127.0.0.1", python=sys.executable)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshHost]:
    if why := ssh_server.missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("sshd")
    with ssh_server.started(folder) as options:
        yield replace(HERE, path=str(folder / "there"), options=options)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository whose launchers/run.py says what it was given, and waits when told to."""
    folder = tmp_path / "checkout"
    (folder / "launchers" / "submit_host").mkdir(parents=True)
    on_host = ROOT / "launchers" / "submit_host" / "on_host.py"
    (folder / "launchers" / "submit_host" / "on_host.py").write_text(on_host.read_text())
    (folder / "launchers" / "run.py").write_text(PROGRAM)
    for words in (["init"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-mx"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, timeout=60)
    return folder


PROGRAM = """
import os, pathlib, sys, time
said, *words = sys.argv[1:]
try:
    pathlib.Path(said).write_text(f"{words} {os.environ['TOKEN']} {os.environ['RECIPE_CODE_VERSION']} {os.environ['RUNS_DIR']}")
    while "wait" in words:
        time.sleep(0.05)
except KeyboardInterrupt:
    pathlib.Path(said).write_text("interrupted")
    sys.exit(130)
print("out"); print("err", file=sys.stderr)
sys.exit(7)
"""


def test_the_tree_and_a_command_go_over_one_login(
    server: SshHost, checkout: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = Path(server.options[server.options.index("-i") + 1]).parent / "log"
    before = log.read_text().count("Accepted publickey")
    commit, changed = tree.committed(checkout, False)
    said = tmp_path / "it's $HOME"
    host = replace(server, env={"RUNS_DIR": "mine"})
    with connected(host) as link:
        sent = tree.send(link, checkout, commit)
        there = RemoteRun(host, sent, f"{sent.folder}/mine/x")
        code = remote_run.run(link, there, ["launchers/run.py", str(said), "a 'b' $c"], {"TOKEN": "s3cret"})
    assert (code, changed) == (7, []) and capfd.readouterr() == ("out\n", "err\n")
    assert said.read_text() == f"""["a 'b' $c"] s3cret {commit} {sent.folder}/mine"""
    assert log.read_text().count("Accepted publickey") == before + 1
    assert Path(sent.tree).stat().st_mode & 0o055 == 0o055, "as others may read a checkout"
    with pytest.raises(ValueError, match="there is no .*/mine/x on 127.0.0.1: refused there, or removed since"):
        remote_run.follow(there, "launchers/status.py", [])
    (Path(sent.tree) / "launchers" / "kept").touch()
    with connected(host) as link:
        tree.send(link, checkout, commit)
    assert (Path(sent.tree) / "launchers" / "kept").exists(), "a commit is sent once"


def test_ctrl_c_interrupts_the_launcher_there(server: SshHost, checkout: Path, tmp_path: Path) -> None:
    """And its exit code comes back, as it does when the connection's stdin ends in another way."""
    sent = Sent(str(checkout.parent), checkout.name)
    said = tmp_path / "said"
    program = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
from launchers.submit_host.link import SshHost, connected
from launchers.submit_host.remote_run import RemoteRun, Sent, run
host = SshHost(**{vars(server)!r})
with connected(host) as link:
    words = ["launchers/run.py", {str(said)!r}, "wait"]
    sys.exit(run(link, RemoteRun(host, Sent({sent.folder!r}, {sent.commit!r}), "x"), words, {{"TOKEN": ""}}))
"""
    child = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    wait_until(lambda: said.exists() or child.poll() is not None)
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130 and said.read_text() == "interrupted"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": ["-p", "1", "-F", "none"]}, "127.0.0.1 cannot be reached: .*refused; does sshd run there"),
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid cannot be reached: .*; is cluster.ssh.host right"),
        ({"python": "no-such-python"}, r"cluster.ssh.python='no-such-python' does not run .*(not found|No such file)"),
        ({"path": "/proc/nothing"}, "cluster.ssh.path=/proc/nothing on 127.0.0.1: .*No such file or directory"),
    ],
)
def test_a_host_that_does_not_do(server: SshHost, change: dict[str, object], message: str) -> None:
    with connected(replace(server, **change)) as link, pytest.raises(ValueError, match=message):  # type: ignore[arg-type]
        tree.probe(link, "abc")


def test_keys_that_do_not_fit(server: SshHost, tmp_path: Path) -> None:
    def refusal(old: str, new: str) -> str:
        options = [word.replace(old, new) for word in server.options]
        with connected(replace(server, options=options)) as link, pytest.raises(ValueError) as caught:
            tree.probe(link, "abc")
        return str(caught.value)

    assert "Permission denied (publickey).; it must let you in without a password" in refusal("/key", "/host_key")
    assert "Host key verification failed.; log in once by hand" in refusal("/known", "/unknown")


def test_a_python_that_is_too_old_or_lacks_a_module(
    server: SshHost, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tree, "OLDEST_PYTHON", (4, 0))
    with connected(server) as link, pytest.raises(ValueError, match=r"is Python 3\.\d+\.\d+, and 4\.0 is needed"):
        tree.probe(link, "abc")
    monkeypatch.setattr(tree, "OLDEST_PYTHON", (3, 0))
    monkeypatch.setattr(tree, "NEEDED", ("json", "no_such_module"))
    with connected(server) as link, pytest.raises(ValueError, match="lacks no_such_module; install"):
        tree.probe(link, "abc")


def test_two_launches_that_send_one_commit_at_once(
    server: SshHost, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one's is whole before this one's: both use that, and nothing else is left."""
    commit, _ = tree.committed(checkout, False)
    copy, others = tree._copy, [1]

    def copy_while_another_sends(link: links.Link, source: str, target: str) -> None:
        copy(link, source, target)
        if others:
            others.pop()
            tree.send(link, checkout, commit)

    monkeypatch.setattr(tree, "_copy", copy_while_another_sends)
    host = replace(server, path=f"{server.path}/two at once")
    with connected(host) as link:
        sent = tree.send(link, checkout, commit)
    assert os.listdir(sent.folder) == [commit] and sorted(os.listdir(sent.tree)) == ["launchers"]


def test_what_lost_connections_left_is_removed_after_a_day(server: SshHost, tmp_path: Path) -> None:
    for name, age_s in (
        ("abc.12345678.part", 90_000),
        ("abc.87654321.part", 60),
        ("def", 90_000),
        ("my.part", 90_000),
    ):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    with connected(replace(server, path=str(tmp_path))) as link:
        tree.probe(link, "abc")
    assert sorted(os.listdir(tmp_path)) == ["abc.87654321.part", "def", "my.part"]


def test_a_tilde_is_the_home_folder_there(server: SshHost, tmp_path: Path) -> None:
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    path, python = (f"~/{os.path.relpath(each, home)}" for each in (tmp_path / "there", sys.executable))
    with connected(replace(server, path=path, python=python)) as link:
        assert tree.probe(link, "abc")["folder"] == str(tmp_path / "there")


def test_a_host_named_by_its_ipv6_address(server: SshHost, checkout: Path, tmp_path: Path) -> None:
    host = replace(server, host="::1", options=[*server.options, "-oHostName=127.0.0.1"], path=str(tmp_path / "six"))
    with connected(host) as link:
        sent = tree.send(link, checkout, tree.committed(checkout, False)[0])
    assert (Path(sent.tree) / "launchers" / "run.py").exists()


def test_a_full_disk(server: SshHost, checkout: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    (checkout / "large").write_bytes(os.urandom(1 << 20))
    git = ["git", "-C", str(checkout), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "add", "."], check=True, timeout=60)
    subprocess.run([*git, "commit", "-qmx"], check=True, timeout=60)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small], check=False)
    if mounted.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        commit, _ = tree.committed(checkout, False)
        full = r"cannot be written: .*No space left on device.*; free some, or set"
        with connected(replace(server, path=str(small))) as link, pytest.raises(ValueError, match=full):
            tree.send(link, checkout, commit)
        assert not list(small.iterdir()), "whole or absent, and the next attempt has the room"
    finally:
        subprocess.run(["umount", "--lazy", small], check=True, timeout=60)  # a server of rsync's may still be ending


def test_programs_that_are_not_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with connected(HERE) as link, pytest.raises(ValueError, match="there is no ssh on PATH here"):
        link.ask(["true"])


def test_a_host_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ssh").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(links, "COMMAND_S", 0.2)
    monkeypatch.setattr(links, "CONNECT_S", 0.2)
    with connected(HERE) as link, pytest.raises(ValueError, match=r"127\.0\.0\.1 did not answer in 0\.2 s"):
        link.ask(["true"])


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_what_the_login_shell_reads_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """csh ends a word in quotes where the line ends."""
    stand_in(tmp_path, monkeypatch, "ssh", f'for word; do :; done; printf %s "$word" >>{tmp_path}/said; exit 1')
    with connected(HERE) as link, pytest.raises(ValueError, match="does not run on 127.0.0.1"):
        tree.probe(link, "abc")
    said = (tmp_path / "said").read_text()
    assert "has_tree" in said and "\n" not in said


def test_a_second_ctrl_c_does_not_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    interrupts = "read line; kill -INT $PPID; exec sleep 600"
    stand_in(tmp_path, monkeypatch, "ssh", f'case "$*" in *on_host*) {interrupts};; esac')
    wait = subprocess.Popen.wait

    def wait_interrupted(child: "subprocess.Popen[str]", timeout: float | None = None) -> int:
        if timeout == remote_run.STOP_S:
            signal.raise_signal(signal.SIGINT)
        return wait(child, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", wait_interrupted)
    there = RemoteRun(HERE, Sent("/there", "abc"), "/there/runs/sft")
    gone = "127.0.0.1 has not said how it ended, .*; look with launchers/status.py sft, and"
    with connected(HERE) as link, pytest.raises(ValueError, match=gone):
        remote_run.run(link, there, ["launchers/run.py"], {})


def test_a_host_that_ssh_would_read_as_an_option() -> None:
    option = SshHost(host="-oProxyCommand=x")
    with pytest.raises(ValueError, match=f"cluster.ssh.host='{option}' is no host"), connected(option):
        pass


def test_a_commit_that_cannot_be_taken(monkeypatch: pytest.MonkeyPatch, checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"/proc is not a git checkout with one: fatal: not a git repository"):
        tree.committed(Path("/proc"), False)
    stand_in(tmp_path, monkeypatch, "tar", "echo 'tar: No space left on device' >&2; exit 2")
    with pytest.raises(ValueError, match="cannot be unpacked in .*: tar: No space left on device; set TMPDIR"):
        tree._extract(checkout, "HEAD", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="there is no git on PATH here"):
        tree.committed(checkout, False)


def test_a_tree_with_changes_is_refused(checkout: Path) -> None:
    commit, _ = tree.committed(checkout, False)
    for number in range(7):
        (checkout / f"new_{number}").touch()
    with pytest.raises(
        ValueError, match=r"not committed are new_0, .*new_4 and 2 more: commit, or cluster\.ssh\.allow"
    ):
        tree.committed(checkout, False)
    assert tree.committed(checkout, True) == (commit, [f"new_{number}" for number in range(7)])


def test_what_stands_for_a_run_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNS_DIR", str(tmp_path))
    there = RemoteRun(
        SshHost(host="login1", env={"RUNS_DIR": "/lustre/runs"}), Sent("/lustre/me", "abc"), "/lustre/runs/sft"
    )
    remote_run.write(there)
    assert remote_run.read(tmp_path / "sft") == there and remote_run.read(tmp_path) is None
    for broken in ("{", "[]", json.dumps({"ssh": {}}), json.dumps({"ssh": {"hots": "x"}})):
        (tmp_path / "sft" / "remote.json").write_text(broken)
        with pytest.raises(ValueError, match="remote.json is damaged"):
            remote_run.read(tmp_path / "sft")
    (tmp_path / "sft" / "launcher.json").write_text("{}")
    with pytest.raises(ValueError, match="is a run of this machine: give this one another run_name="):
        remote_run.write(there)


@pytest.mark.parametrize(
    ("command", "given", "there"),
    [
        (logs, "--task sft sft sft --lines 0", "--task=sft --lines=0 -- /lustre/runs/sft sft"),
        (logs, "sft train --process main --follow --errors",
         "--process=main --follow --lines=50 --errors -- /lustre/runs/sft train"),
        (cancel, "sft sft train", "-- /lustre/runs/sft sft train"),
        (cancel, "sft", "-- /lustre/runs/sft"),
        (status, "--json sft", "--json -- /lustre/runs/sft"),
    ],
)  # fmt: skip
def test_only_the_run_is_named_otherwise_there(
    command: ModuleType, given: str, there: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(remote_run, "follow", lambda _, program, words: asked.append([program, *words]) or 7)
    monkeypatch.setenv("RUNS_DIR", str(tmp_path))
    remote_run.write(RemoteRun(HERE, Sent("/lustre", "abc"), "/lustre/runs/sft"))
    monkeypatch.setattr(sys, "argv", [str(command.__file__), *given.split()])
    assert command.main() == 7
    name = command.__name__.rpartition(".")[2]
    assert asked == [[f"launchers/{name}.py", *there.split()]]


def test_a_launch_here_in_its_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from launchers import run

    monkeypatch.setenv("RUNS_DIR", str(tmp_path))
    (tmp_path / "toy_models").mkdir()
    (tmp_path / "toy_models" / "remote.json").write_text("{}")
    display = Display()
    display.console.file = io.StringIO()
    with pytest.raises(ValueError, match="stands for a run on another machine"):
        run.launch(compose_recipe("toy_models"), display)
