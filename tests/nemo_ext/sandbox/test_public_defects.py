"""Defects of the public implementations, each shown not to be here.

The Numina AIMO notebook: a stateless REPL, print() put around the last line, finished traces that go on, answers lost.
OpenMathInstruct-1: errors recognised by a pattern over the output.
"""

import subprocess

import pytest

from tests.nemo_ext.sandbox.conftest import Service
from tests.nemo_ext.sandbox.scripted_model import ScriptedModel, trace


def fenced(code: str) -> str:
    return f"```python\n{code}\n```\n```output\n"


def test_a_stateless_repl_forgets_names(any_sandbox: Service) -> None:
    model = ScriptedModel([fenced("x = 41"), fenced("print(x + 1)"), "\\boxed{42}"])
    done = trace(any_sandbox, model, format="fenced")
    assert done.trace == {"executions": 2, "errors": {}, "ended": "answer"}
    assert "```output\n42\n```" in done.text


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("for i in range(3):\n    print(i)", "0\n1\n2"),
        ("i = 0\nwhile i < 2:\n    i += 1", ""),
        ("if True:\n    print('yes')", "yes"),
        ("x = 5\nx", "5"),
        ("x = 5", ""),
        ("def f():\n    return 1", ""),
        ("import math", ""),
        ("print(1); print(2)", "1\n2"),
        ("x = [\n    1,\n    2,\n]", ""),
        ("assert True", ""),
    ],
)
def test_b_print_around_the_last_line_breaks_code(any_sandbox: Service, code: str, output: str) -> None:
    done = trace(any_sandbox, ScriptedModel([fenced(code), "."]), format="fenced")
    assert done.trace == {"executions": 1, "errors": {}, "ended": "stop"}
    assert f"```output\n{output}\n```" in done.text


def test_c_finished_traces_go_on(any_sandbox: Service) -> None:
    """Neither after an answer at the end, nor when the model opens another block after it."""
    model = ScriptedModel([fenced("6 * 7"), "So \\boxed{42}.", "never asked for"])
    assert trace(any_sandbox, model, format="fenced").text.endswith("So \\boxed{42}.")
    assert len(model.requests) == 2
    model = ScriptedModel([fenced("6 * 7"), "So \\boxed{42}.\nLet me check.\n" + fenced("1 / 0"), "never asked for"])
    done = trace(any_sandbox, model, format="fenced")
    assert done.text.endswith("So \\boxed{42}.\nLet me check.")
    assert done.trace == {"executions": 1, "errors": {}, "ended": "answer"}
    assert len(model.requests) == 2
    done = trace(any_sandbox, ScriptedModel(model.script), format="fenced", stop_at_answer=False, on_error="go_on")
    assert done.trace == {"executions": 2, "errors": {"error": 1}, "ended": "stop"}


def test_d_a_box_far_from_the_end_is_lost(any_sandbox: Service) -> None:
    done = trace(any_sandbox, ScriptedModel(["The answer is \\boxed{7}. " + "We explain. " * 30]), format="fenced")
    assert done.trace is not None
    assert done.trace["ended"] == "answer"


def test_e_an_answer_without_code_is_pruned(any_sandbox: Service) -> None:
    done = trace(any_sandbox, ScriptedModel(["By symmetry it is \\boxed{7}."]), format="fenced")
    assert (done.text, done.error) == ("By symmetry it is \\boxed{7}.", None)
    assert done.trace == {"executions": 0, "errors": {}, "ended": "answer"}


def test_a_box_inside_code_is_no_answer(any_sandbox: Service) -> None:
    model = ScriptedModel([fenced("print('\\\\boxed{1}')"), "Then \\boxed{2}."])
    done = trace(any_sandbox, model, format="fenced")
    assert len(model.requests) == 2
    assert done.trace == {"executions": 1, "errors": {}, "ended": "answer"}


def test_h_a_timeout_of_the_wrong_kind_escapes(any_sandbox: Service) -> None:
    """Theirs waited with subprocess and caught TimeoutError, which subprocess.TimeoutExpired is not."""
    assert not issubclass(subprocess.TimeoutExpired, TimeoutError)
    done = trace(any_sandbox, ScriptedModel([fenced("import time\ntime.sleep(60)")]), format="fenced", timeout_s=0.3)
    assert done.trace == {"executions": 1, "errors": {"timeout": 1}, "ended": "error"}


def test_printed_words_are_taken_for_an_error(any_sandbox: Service) -> None:
    """And an error that prints no such words is one nevertheless."""
    code = "print('Traceback (most recent call last):')\nprint('Error: SyntaxError timeout')"
    assert trace(any_sandbox, ScriptedModel([fenced(code), "."]), format="fenced").trace == {
        "executions": 1, "errors": {}, "ended": "stop",
    }  # fmt: skip
    done = trace(any_sandbox, ScriptedModel([fenced("import os\nos._exit(0)")]), format="fenced")
    assert done.trace == {"executions": 1, "errors": {"died": 1}, "ended": "error"}


def test_a_result_that_looks_like_a_block_is_executed(any_sandbox: Service) -> None:
    """Only what the model itself wrote since the last result is looked at."""
    code = "print('```python\\nopen(1/0)\\n' + '`' * 3)"
    done = trace(any_sandbox, ScriptedModel([fenced(code), "Nothing more."]), format="fenced")
    assert done.trace == {"executions": 1, "errors": {}, "ended": "stop"}


def test_output_written_by_the_model_is_taken_for_real(any_sandbox: Service) -> None:
    model = ScriptedModel(["I ran it.\n```output\n41\n```\n\\boxed{41}", "never asked for"])
    done = trace(any_sandbox, model, format="fenced")
    assert done.trace == {"executions": 0, "errors": {}, "ended": "not_executed"}
    assert "41" not in done.text
