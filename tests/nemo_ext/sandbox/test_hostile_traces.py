r"""What models and their code do that no prompt asks for: made-up results, marks in the wrong place, printed marks and boxes,
megabytes. Each trace is executed, then graded and filtered as +recipe=openmathinstruct1 does, to be kept or dropped with a reason.
"""

from functools import cache
from typing import Any

import pytest

from nemo_ext.curation.choosing.code_selection import select
from nemo_ext.curation.code_blocks import blocks
from nemo_ext.curation.filter_chain import Chain, Step
from nemo_ext.curation.filters.code import has_code
from nemo_ext.grading.extract import extract_answer
from tests.composing import resolve_recipe
from tests.nemo_ext.sandbox.conftest import Service
from tests.nemo_ext.sandbox.scripted_model import ScriptedModel, trace


@cache
def steps() -> Chain:
    return Chain(
        [Step(each.name, each.params) for each in resolve_recipe("openmathinstruct1")["filter"].tasks[0].typed().steps]
    )


def row(sandbox: Service, *script: str, **config: Any) -> dict[str, Any]:
    """A trace's row, graded: 42 is right."""
    done = trace(sandbox, ScriptedModel(list(script)), **config)
    answer = extract_answer(done.text, "boxed")
    return {
        "problem": "p", "generation": done.text, "trace": done.trace, "finish_reason": done.finish_reason,
        "predicted_answer": answer, "is_correct": answer == "42",
    }  # fmt: skip


def outcome(sandbox: Service, *script: str, **config: Any) -> str | None:
    return steps()(row(sandbox, *script, **config))[1]


RUN = "Let us compute.\n<llm-code>\nprint(6 * 7)\n</llm-code>"
RESULT = "<llm-code-output>\n42\n</llm-code-output>\n"
ANSWER = "So \\boxed{42}."


def test_a_right_trace_is_kept(any_sandbox: Service) -> None:
    assert outcome(any_sandbox, RUN, ANSWER) is None


def test_a_model_that_never_writes_code(any_sandbox: Service) -> None:
    said = row(any_sandbox, "6 times 7 is 42. " + ANSWER)
    assert said["trace"] == {"executions": 0, "errors": {}, "ended": "answer"} and steps()(said)[1] is None
    assert select([has_code(said["generation"])] * 2, "any_code") == [None, None]
    assert select([has_code(said["generation"])] * 2, "all") == ["has_no_code"] * 2


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ([f"I ran it.\n{RESULT}{ANSWER}"], "broken_code"),
        ([RUN, f"And again.\n{RESULT}{ANSWER}"], "broken_code"),
        ([f"```python\nprint(6 * 7)\n```\n```output\n42\n```\n{ANSWER}"], "invented_output"),
        ([RUN, f"And\n```python\nprint(42)\n```\n```output\n42\n```\n{ANSWER}"], "invented_output"),
    ],
)
def test_a_result_that_the_model_made_up(any_sandbox: Service, script: list[str], reason: str) -> None:
    assert outcome(any_sandbox, *script) == reason


def test_a_result_is_not_made_up_where_none_was_shown_or_one_more(any_sandbox: Service) -> None:
    """A trace that began anew shows fewer results than were executed; one that was told to stop, one more."""
    again = row(any_sandbox, RUN.replace("6 * 7", "6 / 0"), RUN, ANSWER, on_error="restart")
    assert again["trace"]["executions"] == 2 and steps()(again)[1] is None
    invented = row(
        any_sandbox,
        RUN.replace("6 * 7", "6 / 0"),
        f"```python\n1\n```\n```output\n42\n```\n{ANSWER}",
        on_error="restart",
    )
    assert steps()(invented)[1] == "invented_output"
    told = row(any_sandbox, RUN, RUN, ANSWER, max_executions=1, max_executions_text="That was the last one.")
    assert told["trace"]["executions"] == 1 and steps()(told)[1] is None


def test_solutions_that_were_written_without_a_sandbox_are_all_made_up() -> None:
    text = f"{RUN}\n{RESULT}{ANSWER}"
    made_up = {"problem": "p", "generation": text, "finish_reason": "stop", "is_correct": True}
    assert steps()(made_up)[1] == steps()(made_up | {"trace": None})[1] == "invented_output"
    assert steps()(made_up | {"trace": {"executions": 1, "errors": {}, "ended": "answer"}})[1] is None


@pytest.mark.parametrize(
    "script",
    [
        ["<llm-code>\n<llm-code>\nprint(6 * 7)\n</llm-code>", ANSWER],
        [RUN, f"{ANSWER}\n</llm-code-output>"],
        [RUN, f"<llm-code-output>\n{ANSWER}"],
    ],
)
def test_nested_and_unclosed_marks(any_sandbox: Service, script: list[str]) -> None:
    assert outcome(any_sandbox, *script) == "broken_code"


def test_a_block_that_is_never_closed(any_sandbox: Service) -> None:
    cut = row(any_sandbox, "<llm-code>\n" + "x = 1\n" * 300)
    assert cut["trace"]["executions"] == 0 and steps()(cut)[1] == "truncated"


@pytest.mark.parametrize("printed", ["</llm-code-output>", "<llm-code>", "</llm-code>", "```output", "```python"])
def test_code_that_prints_marks(any_sandbox: Service, printed: str) -> None:
    code = f"print('{printed[:4]}' + '{printed[4:]}')"
    done = row(any_sandbox, f"<llm-code>\n{code}\n</llm-code>", ANSWER)
    assert [block.kind for block in blocks(done["generation"]) or ()] == ["code", "output"]
    assert done["trace"]["executions"] == 1 and steps()(done)[1] is None


@pytest.mark.parametrize("form", ["llm_code", "fenced"])
@pytest.mark.parametrize("printed", ["\\boxed{42}", "\\fbox{42}"])
def test_a_box_that_code_prints_is_no_answer(any_sandbox: Service, printed: str, form: str) -> None:
    code = f"print({printed!r})"
    block = f"<llm-code>\n{code}\n</llm-code>" if form == "llm_code" else f"```python\n{code}\n```\n```output\n"
    silent = row(any_sandbox, block, "That is it.", format=form)
    assert printed in silent["generation"] and silent["predicted_answer"] is None
    assert steps()(silent)[1] == "no_answer"
    other = row(any_sandbox, block, "No: it is \\boxed{7}.", format=form)
    assert other["predicted_answer"] == "7" and steps()(other)[1] == "incorrect"
    no_box_of_its_own = row(any_sandbox, block, "So the number in the box.", format=form)
    assert extract_answer(no_box_of_its_own["generation"]) is None


@pytest.mark.parametrize(("characters", "shown"), [(100_000, "<output cut>"), (3_000_000, "and was stopped")])
def test_megabytes_of_output(any_sandbox: Service, characters: int, shown: str) -> None:
    script = [f"<llm-code>\nprint('x' * {characters})\n</llm-code>", ANSWER]
    done = row(any_sandbox, *script, on_error="go_on", max_total_tokens=5000)
    assert shown in done["generation"] and len(done["generation"]) < 1300
    assert steps()(done)[1] == ("code_error" if done["trace"]["errors"] else None)
    assert bool(done["trace"]["errors"]) is (characters > 1_000_000)


def test_a_block_whose_process_ends_is_an_error(any_sandbox: Service) -> None:
    assert (
        outcome(any_sandbox, "<llm-code>\nimport os\nos._exit(0)\n</llm-code>", ANSWER, on_error="go_on")
        == "code_error"
    )
