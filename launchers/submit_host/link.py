"""One ssh connection to the machine that jobs are submitted from, however many commands go over it."""

import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

CONNECT_S = 15
COMMAND_S = 120.0
SSH_FAILED = 255
HINTS = {
    "Permission denied": "it must let you in without a password: ssh-copy-id, or a key in ssh-agent",
    "Host key verification failed": "log in once by hand, so that ssh knows it",
    "resolve hostname": "is cluster.ssh.host right?",
    "timed out": "is it up, and reachable from here (VPN, or -J <jump host> in cluster.ssh.options)?",
    "refused": "does sshd run there, on that port?",
}
"""A word of ssh's -> what to do."""


@dataclass(kw_only=True)
class SshHost:
    """`cluster.ssh`."""

    host: str
    """ssh's name for it: a host name, or an entry of ~/.ssh/config."""
    user: str | None = None
    path: str = "megatron-recipes"
    """A folder there that the nodes see, absolute or below the home folder: trees go to <path>/<commit>, runs to
    <path>/runs."""
    python: str = "python3"
    """The interpreter there, with this project's requirements."""
    env: dict[str, str] = field(default_factory=dict)
    """Variables of the launcher there, such as HF_MODELS, DATA_DIR and RUNS_DIR. No secrets: cluster.env_from."""
    options: list[str] = field(default_factory=list)
    """More words for ssh, such as ["-p", "2222"]."""
    allow_dirty: bool = False
    """Send the last commit though the tree differs from it."""

    @property
    def interpreter(self) -> str:
        """`python` as one word of an argv, where nobody expands `~`: commands start in the home folder."""
        return f"./{self.python[2:]}" if self.python.startswith("~/") else self.python

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" if self.user else self.host


@dataclass(frozen=True)
class Link:
    host: SshHost
    control: str
    """Folder of the connection's socket."""

    @property
    def ssh(self) -> list[str]:
        """ssh and its options, without the host; of an option given twice ssh takes the first."""
        user = ["-l", self.host.user] if self.host.user else []
        options = [
            "BatchMode=yes", f"ConnectTimeout={CONNECT_S}", "ServerAliveInterval=15", "ControlMaster=auto",
            f"ControlPath={self.control}/%C", "ControlPersist=60",
        ]  # fmt: skip
        return ["ssh", *self.host.options, *user, *(f"-o{option}" for option in options)]

    def argv(self, words: list[str]) -> list[str]:
        """What runs `words` there in a login shell's environment, where sites put Slurm and Python on PATH."""
        login = ["bash", "-lc", 'exec "$@"', "bash", *words]
        return [*self.ssh, "--", self.host.host, shlex.join(login)]

    def ask(self, words: list[str]) -> "subprocess.CompletedProcess[str]":
        """Run a command there to its end, quickly.

        Raises:
            ValueError: the host cannot be reached, or did not answer.
        """
        return self.run(self.argv(words), COMMAND_S)

    def run(self, argv: list[str], timeout_s: float | None) -> "subprocess.CompletedProcess[str]":
        """Run a command of this machine that speaks with the host.

        Raises:
            ValueError: there is no such program, ssh could not connect, or it took longer.
        """
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout_s,
                check=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise ValueError(f"cluster.ssh: there is no {argv[0]} on PATH here") from None
        except subprocess.TimeoutExpired:
            raise ValueError(f"cluster.ssh: {self.host} did not answer in {timeout_s:g} s") from None
        if done.returncode == SSH_FAILED:
            raise ValueError(f"cluster.ssh: {self.host} cannot be reached: {self.why(done.stderr)}")
        return done

    def why(self, said: str) -> str:
        """ssh's last words, and what to do."""
        words = last_line(said) or "ssh does not say why"
        hint = next((f"; {hint}" for word, hint in HINTS.items() if word in words), "")
        return f"{words}{hint}"

    def close(self) -> None:
        """Ask the connection in the background to end; without an answer it ends by itself after a minute."""
        try:
            self.run([*self.ssh, "-O", "exit", "--", self.host.host], CONNECT_S)
        except ValueError:
            return


@contextmanager
def connected(host: SshHost) -> Iterator[Link]:
    """Raises ValueError for a host that ssh would read as an option."""
    if host.host.startswith("-"):
        raise ValueError(f"cluster.ssh.host={host.host!r} is no host; options of ssh go into cluster.ssh.options")
    # the path of a socket may have 107 characters, and a Mac's own folder for such files takes most of them
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ssh-") as folder:
        link = Link(host, folder)
        try:
            yield link
        finally:
            link.close()


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
