"""Blocks run as the interactive interpreter runs them."""

import json
import uuid

import pytest

from tests.nemo_ext.sandbox.conftest import Service


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("1 + 1", "2\n"),
        ("x = 3", ""),
        ("x = 3\nx", "3\n"),
        ("None", ""),
        ("print('a')\n'b'", "a\n'b'\n"),
        ("print('a')", "a\n"),
        ("'''several\nlines'''", "'several\\nlines'\n"),
        ("f'{1}'; 2", "2\n"),
        ("# only a comment", ""),
        ("", ""),
        ("   \n\n", ""),
        ("x = 1; x", "1\n"),
        ("(\n1 +\n2\n)", "3\n"),
        ("lambda: 0; ...", "Ellipsis\n"),
        ("if __name__ == '__main__': print('main')", "main\n"),
        ("def f():\n    return 4\nf()  # comment", "4\n"),
        ("import sys\nprint('o', end='')\nprint('e', end='', file=sys.stderr)\nprint('o')", "oeo\n"),
        ("import os\nprint('first')\ni = os.system('echo second')\nprint('third')", "first\nsecond\nthird\n"),
        ("import logging\nlogging.warning('w')", "WARNING:root:w\n"),
        ("exit()\nprint('not reached')", ""),
        ("len(str(10**5000))", "5001\n"),
        ("'\u00e9\u4e2d'", "'\u00e9\u4e2d'\n"),
        ("print('no newline', end='')", "no newline"),
    ],
)  # fmt: skip
def test_shows_what_a_block_prints_and_its_last_expression(any_sandbox: Service, code: str, output: str) -> None:
    reply = any_sandbox.execute(code)
    assert (reply["class"], reply["output"], reply["message"]) == ("ok", output, "")


def test_state_is_kept_and_is_a_sessions_own(any_sandbox: Service) -> None:
    a, b = uuid.uuid4().hex, uuid.uuid4().hex
    assert any_sandbox.execute("import math\nx = 2\ndef f(): return x", a)["state"] == "new"
    reply = any_sandbox.execute("x += 1\nmath.floor(f())", a)
    assert (reply["output"], reply["state"]) == ("3\n", "kept")
    assert any_sandbox.execute("x", b)["output"].endswith("NameError: name 'x' is not defined\n")
    any_sandbox.execute("y = x = 10\n1 / 0", a)
    assert any_sandbox.execute("x, y", a)["output"] == "(10, 10)\n", "an exception undoes nothing"


def test_traceback_is_of_the_blocks_own_lines(any_sandbox: Service) -> None:
    session = uuid.uuid4().hex
    any_sandbox.execute("import json\ndef read(text):\n    return json.loads(text)", session)
    reply = any_sandbox.execute("x = 1\nread('nonsense')", session)
    assert reply["class"] == "error"
    assert reply["output"] == (
        "Traceback (most recent call last):\n"
        '  File "<block 2>", line 2, in <module>\n'
        "    read('nonsense')\n"
        '  File "<block 1>", line 3, in read\n'
        "    return json.loads(text)\n"
        "           ^^^^^^^^^^^^^^^^\n"
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)\n"
    )


@pytest.mark.parametrize(
    ("code", "ended", "last_line"),
    [
        ("x = = 1", "syntax_error", "SyntaxError: invalid syntax"),
        ("for i in range(3):", "syntax_error", "IndentationError: expected an indented block after 'for' statement on line 1"),
        ("a\0b", "syntax_error", "SyntaxError: source code string cannot contain null bytes"),
        ("return 1", "syntax_error", "SyntaxError: 'return' outside function"),
        ("exec('x = = 1')", "error", "SyntaxError: invalid syntax"),
        ("1 / 0", "error", "ZeroDivisionError: division by zero"),
        ("raise KeyboardInterrupt", "error", "KeyboardInterrupt"),
        ("exit(3)", "error", "SystemExit: 3"),
        ("input()", "error", "EOFError: EOF when reading a line"),
        ("raise ExceptionGroup('g', [ValueError(1)])", "error", "    +------------------------------------"),
        ("class E(Exception):\n    def __str__(self): raise ValueError\nraise E", "error", "E: <exception str() failed>"),
        ("class R:\n    def __repr__(self): 1 / 0\nR()", "error", "ZeroDivisionError: division by zero"),
        ("try:\n    1 / 0\nexcept Exception as e:\n    raise ValueError('b') from e", "error", "ValueError: b"),
    ],
)  # fmt: skip
def test_errors_and_their_class(any_sandbox: Service, code: str, ended: str, last_line: str) -> None:
    session = uuid.uuid4().hex
    any_sandbox.execute("kept = 1", session)
    reply = any_sandbox.execute(code, session)
    assert (reply["class"], reply["output"].splitlines()[-1]) == (ended, last_line)
    assert "nemo_ext" not in reply["output"], "our frames are not shown"
    assert any_sandbox.execute("kept", session)["output"] == "1\n"


def test_a_block_that_breaks_its_streams_breaks_nothing_after_it(any_sandbox: Service) -> None:
    session = uuid.uuid4().hex
    for code in (
        "import os\nprint('lost', end='')\nos.closerange(0, 3)",
        "import sys\nsys.stdout.close()",
        "import sys\nsys.stdout = None",
        "import sys, os\nos.dup2(os.open('/dev/null', os.O_WRONLY), 1)",
        "import sys\ndel sys.stdout, sys.stderr",
    ):
        any_sandbox.execute(code, session)
        assert any_sandbox.execute("print('well')\n6 * 7", session)["output"] == "well\n42\n", code


def test_a_logger_of_an_earlier_block_still_writes(any_sandbox: Service) -> None:
    any_sandbox.execute("import logging\nlogging.basicConfig(format='%(message)s')", "logger")
    assert any_sandbox.execute("logging.warning('again')", "logger")["output"] == "again\n"


def test_forked_process_does_not_answer_for_the_session(any_sandbox: Service) -> None:
    reply = any_sandbox.execute("import os\nif child := os.fork(): i = os.waitpid(child, 0)\nprint(os.getpid() == 1)")
    assert sorted(reply["output"].split()) == ["False", "True"]
    code = "import multiprocessing\ndef square(x): return x * x\nwith multiprocessing.Pool(2) as pool: print(pool.map(square, range(4)))"
    assert any_sandbox.execute(code)["output"] == "[0, 1, 4, 9]\n"


def test_the_same_block_gives_the_same(sandbox: Service) -> None:
    """Hashes and random numbers too, so that a replayed session is the session."""
    code = "import random, numpy\nrandom.random(), numpy.random.rand(), hash('a'), list({'a', 'b', 'c', 'd'})"
    assert sandbox.execute(code)["output"] == sandbox.execute(code)["output"]


def test_maths_libraries_are_there(sandbox: Service) -> None:
    code = "import sympy\nx = sympy.symbols('x')\nsympy.solve(x**2 - 5*x + 6, x)"
    assert sandbox.execute(code)["output"] == "[2, 3]\n"
    assert sandbox.execute("import numpy as np\nint(np.linalg.det(np.eye(64) * 1).round())")["output"] == "1\n"


def test_output_keeps_head_and_tail(any_sandbox: Service) -> None:
    reply = any_sandbox.execute("print('begin' + 'm' * 200_000 + 'end')")
    assert reply["class"] == "ok"
    assert reply["truncated"]
    assert reply["output"].startswith("beginmm")
    assert reply["output"].endswith("mmend\n")
    assert len(reply["output"]) < 140_000
    assert "bytes ...\n" in reply["output"]
    json.dumps(reply)
