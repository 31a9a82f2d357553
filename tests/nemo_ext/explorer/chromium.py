"""A headless Chromium, driven over the DevTools protocol: pages opened from disk, clicks, keys, screenshots."""

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-extensions", "--hide-scrollbars", "--remote-debugging-port=0",
)  # fmt: skip
START_S, STEP_S = 60, 60
PATH = shutil.which("chromium")


class Refused(AssertionError):
    """What the browser would not do: evaluate, say, while another page takes the place of this one."""


class Page:
    """One tab. Every method waits for the browser's answer."""

    def __init__(self, runner: asyncio.Runner, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.runner, self.socket = runner, socket
        self.number = 0
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self.runner.run(asyncio.wait_for(self._send(method, params), STEP_S))

    async def _send(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.number += 1
        mine = self.number
        await self.socket.send_str(json.dumps({"id": mine, "method": method, "params": params}))
        while True:
            message = json.loads((await self.socket.receive()).data)
            if message.get("id") == mine:
                if "error" in message:
                    raise Refused(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def run(self, expression: str) -> Any:
        """The value of JavaScript; a promise's, when it is kept. Raises AssertionError when it throws."""
        done = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, f"{expression}: {done['exceptionDetails']}"
        return done["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait for it to be true."""
        deadline = time.monotonic() + STEP_S
        while not self._is_true(expression):
            assert time.monotonic() < deadline, f"never true: {expression}; the page says: {self.run(TEXT)}"
            time.sleep(0.02)

    def _is_true(self, expression: str) -> bool:
        try:
            return bool(self.run(f"Boolean({expression})"))
        except Refused:  # no page for a moment
            return False

    def open(self, path: Path, fragment: str = "") -> None:
        """Open a page from disk, and wait until its formulas are set."""
        self.events.clear()
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=f"{path.absolute().as_uri()}{fragment}")
        self.until("performance.getEntriesByName('explorer-typeset').length")

    def click(self, selector: str) -> None:
        """A real click in the middle of the first such element on the screen."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.until(found)
        box = self.run(
            f"(() => {{ const e = {found}; e.scrollIntoView({{block: 'nearest'}}); const b = e.getBoundingClientRect(); "
            "return {x: b.x + b.width / 2, y: b.y + b.height / 2}; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **box)

    def key(self, key: str) -> None:
        text = key if len(key) == 1 else "\r" if key == "Enter" else ""
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def text(self, selector: str) -> str:
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def texts(self, selector: str) -> list[str]:
        return self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.innerText)")

    def size(self, width: int, height: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def scheme(self, name: str) -> None:
        """`light` or `dark`."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))

    def requested(self) -> list[str]:
        """Addresses of everything that was asked for since `open`."""
        self.run("1")
        return [
            each["params"]["request"]["url"] for each in self.events if each["method"] == "Network.requestWillBeSent"
        ]

    def errors(self) -> list[str]:
        """What scripts threw and what the security policy refused, since `open`."""
        self.run("1")
        failures = [
            each["params"]["exceptionDetails"] for each in self.events if each["method"] == "Runtime.exceptionThrown"
        ]
        thrown = [str(each.get("exception", {}).get("description", each["text"])) for each in failures]
        logged = [e["params"]["entry"] for e in self.events if e["method"] == "Log.entryAdded"]
        return thrown + [each["text"] for each in logged if each["level"] == "error"]


TEXT = "document.body.innerText.slice(0, 500)"


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A tab of a fresh browser, whose profile is the empty folder `profile`; the browser ends with the block."""
    assert PATH is not None, "no Chromium on this machine"
    argv = [PATH, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        with asyncio.Runner() as runner:
            session, socket = runner.run(_connect(profile / "DevToolsActivePort"))
            page = Page(runner, socket)
            for domain in ("Page", "Runtime", "Network", "Log"):
                page.send(f"{domain}.enable")
            page.size(1440, 900)
            yield page
            runner.run(socket.close())
            runner.run(session.close())
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


async def _connect(port_file: Path) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    deadline = time.monotonic() + START_S
    while not (port_file.is_file() and "\n" in (text := port_file.read_text())):
        assert time.monotonic() < deadline, "Chromium did not start"
        await asyncio.sleep(0.05)
    session = aiohttp.ClientSession()
    while not (pages := [each for each in await _tabs(session, text.split("\n")[0]) if each["type"] == "page"]):
        assert time.monotonic() < deadline, "Chromium opened no tab"
        await asyncio.sleep(0.05)
    return session, await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)


async def _tabs(session: aiohttp.ClientSession, port: str) -> list[dict[str, Any]]:
    async with session.get(f"http://127.0.0.1:{port}/json") as answer:
        tabs: list[dict[str, Any]] = await answer.json()
    return tabs
