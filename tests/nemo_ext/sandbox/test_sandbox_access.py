"""Who may use a service: the token, where it is kept, and what becomes of those who leave."""

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from nemo_ext.sandbox import access
from nemo_ext.sandbox.config import ToolLoopConfig
from nemo_ext.sandbox.remote import SandboxDown
from recipes.asking.tool_use import ToolStage, sandbox_processes, tool_loop
from tests.conftest import ROOT
from tests.nemo_ext.sandbox.conftest import SMALL, Service, sessions_of, start_service, stop, wait_until
from tests.nemo_ext.sandbox.scripted_model import ScriptedModel, trace

CALL = b'{"session": "a", "code": "1"}'


def ask(service: Service, method: str, path: str, **headers: str) -> tuple[int, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = CALL if method == "POST" else None
    request = urllib.request.Request(service.url + path, data=body, method=method, headers=named)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_without_the_token_nothing_runs_and_nothing_ends(any_sandbox: Service) -> None:
    any_sandbox.execute("x = 1", "guarded")
    right = access.header(any_sandbox.token)["Authorization"]
    for wrong in ({}, *({"Authorization": text} for text in ("", "Bearer", "Bearer x", right[:-1], f"{right}0", "é"))):
        status, told = ask(any_sandbox, "POST", "/execute", Content_Type="application/json", **wrong)
        assert (status, any_sandbox.token in told) == (401, False)
        assert ask(any_sandbox, "DELETE", "/sessions/guarded", **wrong)[0] == 401
    assert any_sandbox.execute("x", "guarded")["output"] == "1\n"
    assert any_sandbox.request("DELETE", "/sessions/guarded") == (200, {"deleted": True})


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_web_page_may_send_is_refused(any_sandbox: Service, kind: str) -> None:
    status, told = ask(any_sandbox, "POST", "/execute", Content_Type=kind, **access.header(any_sandbox.token))
    assert status == 415
    assert "it must be application/json" in told


def test_json_may_name_its_encoding(any_sandbox: Service) -> None:
    kind = "Application/JSON; charset=utf-8"
    assert ask(any_sandbox, "POST", "/execute", Content_Type=kind, **access.header(any_sandbox.token))[0] == 200


def test_the_token_is_its_users_alone_and_goes_with_the_service(tmp_path: Path, start: Callable[..., Service]) -> None:
    service = start()
    path = tmp_path / "sandbox.token"
    assert path.stat().st_mode & 0o777 == 0o600
    assert (path.read_text(), len(service.token)) == (service.token, 64)
    assert service.token not in (tmp_path / "sandbox.json").read_text() + service.log.read_text()
    seen = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(service.process.pid)], capture_output=True, text=True)
    assert service.token not in seen.stdout
    assert service.token not in service.execute("import os\nprint(os.environ)")["output"]
    service.process.terminate()
    assert service.process.wait(60) == 0
    assert not path.exists()


def test_a_killed_services_token_is_used_again_if_nobody_else_had_it(tmp_path: Path) -> None:
    address, token = tmp_path / "sandbox.json", "k" * 32
    path = access.token_path(address)
    for mode, text, again in ((0o600, token, True), (0o644, token, False), (0o600, "short", False)):
        path.write_text(text)
        path.chmod(mode)
        with access.published(address) as used:
            assert (used == token) is again
            assert access.read(address) == used
        assert not path.exists()
    (tmp_path / "other").write_text(token)
    (tmp_path / "other").chmod(0o600)
    path.symlink_to(tmp_path / "other")
    with access.published(address) as used:
        assert used != token
    assert (tmp_path / "other").read_text() == token


def test_a_token_from_the_environment_is_in_no_file(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"sandbox": {"preload": [], **SMALL}}))
    argv = [sys.executable, "-m", "nemo_ext.sandbox.service", str(tmp_path / "c.yaml")]
    argv += ["--address-file", str(tmp_path / "sandbox.json"), "--token-env", "MY_TOKEN"]
    for token in ("", "tooshort", "with a blank in the middle"):
        env = {**os.environ, "MY_TOKEN": token}
        ended = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
        assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
        assert "--token-env=MY_TOKEN: that variable" in ended.stderr
        assert not token or token not in ended.stderr


def test_an_external_sandbox_takes_its_token_from_the_environment(
    any_sandbox: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = SimpleNamespace(
        name="generate", use_tools=True, sandbox_urls=[f"{any_sandbox.url}/"], sandbox_token_env="MY_TOKEN", tools=ToolLoopConfig()
    )  # fmt: skip
    assert sandbox_processes(stage, "c.yaml") == [], "nothing is started"  # type: ignore[arg-type]
    monkeypatch.setenv("MY_TOKEN", any_sandbox.token)
    loop = tool_loop(stage)  # type: ignore[arg-type]
    assert (loop.urls, loop._token) == ([any_sandbox.url], any_sandbox.token)
    monkeypatch.delenv("MY_TOKEN")
    with pytest.raises(ValueError, match="sandbox_token_env=MY_TOKEN: that variable is not set"):
        tool_loop(stage)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("urls", "name", "says"),
    [
        (["http://h:1"], None, "NAME of the environment variable"),
        (["http://h:1"], "0f3a9c-secret", "NAME of the environment variable"),
        (["h:1"], "TOKEN", "write http"),
        (["http://user:secret@h:1"], "TOKEN", "write http"),
        (["http://h:1?token=secret"], "TOKEN", "write http"),
    ],
)
def test_a_wrong_external_sandbox_is_refused_and_no_secret_shown(urls: list[str], name: str | None, says: str) -> None:
    stage = SimpleNamespace(name="generate", use_tools=True, sandbox_urls=urls, sandbox_token_env=name)
    with pytest.raises(ValueError, match=says) as raised:
        sandbox_processes(stage, "c.yaml")  # type: ignore[arg-type]
    assert "secret" not in str(raised.value)
    assert ToolStage.__dataclass_fields__["sandbox_urls"].default_factory is list


def test_a_wrong_token_stops_the_run_with_a_reason(any_sandbox: Service, caplog: pytest.LogCaptureFixture) -> None:
    other = Service(any_sandbox.process, any_sandbox.url, any_sandbox.log, "w" * 64)
    with caplog.at_level(logging.DEBUG), pytest.raises(SandboxDown, match="does not take our token") as raised:
        trace(other, ScriptedModel(["<llm-code>\n1\n</llm-code>"]))
    assert other.token not in str(raised.value) + caplog.text


def leave_while_it_runs(service: Service, body: bytes) -> None:
    host, _, port = service.url.removeprefix("http://").partition(":")
    head = (
        f"POST /execute HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    head += f"Authorization: Bearer {service.token}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        wait_until(lambda: service.health["running"] == 1)


@pytest.mark.parametrize("isolation", ["bubblewrap", "namespaces"])
def test_a_client_that_leaves_frees_its_place(tmp_path: Path, isolation: str) -> None:
    from tests.nemo_ext.sandbox.conftest import possible

    if isolation not in possible():
        pytest.skip(f"no isolation by {isolation} on this machine")
    service = start_service(tmp_path, isolation=isolation, preload=[], **{**SMALL, "max_parallel": 1})
    try:
        idle = len(service.descendants)
        slow = "import time\ntime.sleep(50)"
        for call in ({"code": slow}, {"code": "1", "history": [slow] * 50}):
            leave_while_it_runs(service, json.dumps({"session": "gone", "timeout_s": 60, **call}).encode())
            assert service.execute("6 * 7")["output"] == "42\n"
        wait_until(lambda: service.health["running"] == 0)
        assert service.health["sessions"] == 2, "only those that were answered"
        wait_until(lambda: len(service.descendants) <= idle + 2)
        assert "Traceback" not in service.log.read_text()
    finally:
        stop(service)


def test_a_restored_history_has_one_budget() -> None:
    async def run() -> None:
        async with sessions_of(max_timeout_s=1.5) as sessions:
            history = ["import time\nx = 1\ntime.sleep(0.5)"] * 50
            result, state, _ = await sessions.execute("s", "'x' in globals()", 1.5, history)
            assert (result.output, state) == ("False\n", "lost")
            assert sessions.alive == 1
            result, state, _ = await sessions.execute("t", "x", 1.5, history[:1])
            assert (result.output, state) == ("1\n", "restored")

    asyncio.run(run())
