"""The bench's peer of the sandbox: no session is kept, each execution begins a fresh interpreter, which runs all blocks of
the trace so far and then the new one, as OpenMathInstruct-1's published code does.

Its routes are the sandbox's own, so that the same stage, client and loop ask it. As many executions at once as there are
cores, which is its best. It isolates nothing and limits nothing but the time: it may only run what is trusted.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

PLAIN = """
import contextlib, io, json, sys, traceback
names, ended, printed = {"__name__": "__main__"}, "ok", io.StringIO()
for block in json.load(sys.stdin):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            exec(block, names)
        except BaseException:
            traceback.print_exc()
            ended = "error"
print(json.dumps([ended, printed.getvalue()]))
"""
IPYTHON = """
import json, os, sys, warnings
warnings.filterwarnings("ignore")
os.environ["OPENBLAS_NUM_THREADS"] = "16"
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils import io
shell = InteractiveShell()
shell.InteractiveTB.set_mode(mode="Plain")
for block in json.load(sys.stdin):
    with io.capture_output() as captured:
        done = shell.run_cell(block)
print(json.dumps(["ok" if done.success else "error", captured.stdout.replace("Out[1]: ", "").strip() + captured.stderr]))
"""
INTERPRETERS = {"plain": PLAIN, "ipython": IPYTHON}
"""`plain` is less than what was published, an interpreter without IPython; `ipython` is it, imports and all."""


@contextmanager
def replaying_sandbox(interpreter: str) -> Iterator[tuple[str, int]]:
    """Its URL and the id of its process."""
    with tempfile.TemporaryDirectory() as home:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.replaying_sandbox", interpreter],
            stdout=subprocess.PIPE,
            env={**os.environ, "IPYTHONDIR": home},
        )
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}", process.pid
        finally:
            process.terminate()
            process.wait()


async def _serve(program: str) -> None:
    slots = asyncio.Semaphore(len(os.sched_getaffinity(0)))

    async def execute(request: web.Request) -> web.Response:
        body = await request.json()
        async with slots:
            ended, output = await _run(program, [*body["history"], body["code"]], body["timeout_s"])
        return web.json_response({"class": ended, "output": output, "message": "", "state": "kept", "lost": False})

    async def delete(request: web.Request) -> web.Response:
        return web.json_response({"deleted": True})

    application = web.Application()
    application.add_routes([web.post("/execute", execute), web.delete("/sessions/{name}", delete)])
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


async def _run(program: str, blocks: list[str], timeout_s: float) -> tuple[str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(json.dumps(blocks).encode()), timeout_s)
    except TimeoutError:
        process.kill()
        await process.wait()
        return "timeout", "Timed out"
    ended, output = json.loads(printed)
    return ended, output


if __name__ == "__main__":
    asyncio.run(_serve(INTERPRETERS[sys.argv[1]]))
