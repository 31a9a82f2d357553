"""Words of the command line reach the config as they were typed, and a mistake names what there is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from launchers.planning.overrides import check_name, prepare
from tests.conftest import ROOT
from tests.launchers.conftest import Launch


def value_of(word: str) -> object:
    return OverridesParser.create().parse_override(prepare([word])[0]).value()


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0$")).filter(
        lambda text: text[:1] not in tuple("'\"[{~")
    )
)
@example("/x/lr=1e-5/rows.jsonl")
@example("/数学/rows.jsonl")
@example("a, b.jsonl")
@example("a,b.jsonl")
@example('C:\\x"y\\')
@example("1e5")
@example("true")
def test_a_path_is_the_text_that_was_typed(text: str) -> None:
    if text and text != "null":
        assert value_of(f"input={text}") == text


def test_home_is_expanded() -> None:
    assert value_of("data=~/rows.jsonl") == f"{Path.home()}/rows.jsonl"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("stages.train.lr=1e-5", 1e-5),
        ("only=[filter,grade]", ["filter", "grade"]),
        ("redo=true", True),
        ("input='quoted, already'", "quoted, already"),
        ("benchmarks=[gsm8k,/x/y.jsonl]", ["gsm8k", "/x/y.jsonl"]),
        ("run_name=${scale}x", "${scale}x"),
        ("stages.judge.name=数学", "数学"),
    ],
)
def test_other_values_stay_what_hydra_makes_of_them(word: str, value: object) -> None:
    found = value_of(word)
    assert (str(found) if isinstance(value, str) else found) == value


def test_the_overlay_comes_after_the_recipe() -> None:
    assert prepare(["a=1", "+scale=tiny", "+recipe=grade"]) == ["+recipe=grade", "+scale=tiny", "a=1"]


@pytest.mark.parametrize(
    "name", ["", "None", "..", "../../x", "/x", "a/../b", "a//b", ".hidden", "x" * 201, "a\nb", "a b"]
)
def test_names_that_leave_runs_or_fit_no_file_system(name: str) -> None:
    with pytest.raises(ValueError, match="run_name="):
        check_name(name)


@pytest.mark.parametrize("name", ["lr1e-5", "1e5", "true", "ablations/lr=1e-5", "a.b_c-d@e"])
def test_good_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("stages.grade.extracter=x", "stages.grade has no 'extracter'; did you mean extractor?"),
        ("stages.grad.extractor=x", "stages has no 'grad'; did you mean grade?"),
        ("inputt=3", "there is no key 'inputt'; did you mean input?"),
        ("stages.grade.timeout_s=abc", "could not be converted to Float"),
        ("run_name=", "run_name= is empty"),
        ("run_name=..", "must not begin with a dot"),
        ("only=grad", "no stage 'grad' in this recipe; it has: grade"),
    ],
)
def test_mistakes_are_one_line_that_says_what_there_is(
    launch_here: Launch, tmp_path: Path, word: str, said: str
) -> None:
    done = launch_here("+recipe=grade", "+scale=tiny", f"input={tmp_path}", "dry_run=true", word)
    assert done.returncode == 2 and said in " ".join((done.stdout + done.stderr).split())
    assert not (tmp_path / "runs").exists(), "refused before anything was made"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stages.train.lrr=1"], "stages.train has no 'lrr'; did you mean lr?"),
        (["+stages.train.lrr=1"], "stages.train has no 'lrr'; did you mean lr?"),
        (["++stages.train.lrr=1"], "stages.train has no 'lrr'; did you mean lr?"),
        (["~stages.train.lrr"], "stages.train has no 'lrr'; did you mean lr?"),
        (["stages.train.lrr=1", "stages.evaluate.sead=1", "inputt=1"], "has no 'lrr'; did you mean lr?"),
        (["stages.trian.lr=1"], "stages has no 'trian'; did you mean train?"),
        (["stages.my-train.lr=1"], "stages has no 'my-train'"),
        (["stages.train.checkpoint.foo=1"], "stages.train has no 'checkpoint'; did you mean keep_checkpoints?"),
        (["+stages.train.checkpoint.foo=1"], "stages.train has no 'checkpoint'; did you mean keep_checkpoints?"),
        (["stages.train.model.hf_pth=x"], "stages.train.model has no 'hf_pth'; did you mean hf_path?"),
        (
            ["+stages.evaluate.sampling.temprature=1"],
            "stages.evaluate.sampling has no 'temprature'; did you mean temp",
        ),
        (["+stages.evaluate.variants.average.sampling.temprature=1"], "no 'temprature'; did you mean temperature?"),
        (["student.hf_pth=x"], "student has no 'hf_pth'; did you mean hf_path?"),
        (["+teacher.hf_pth=x"], "teacher has no 'hf_pth'; did you mean hf_path?"),
        (["+student.hf_pth=x"], "student has no 'hf_pth'; did you mean hf_path?"),
        (["server.replica=1"], "server has no 'replica'; did you mean replicas?"),
        (["+server.replica=1"], "server (server.kind=embedded) has no 'replica'; did you mean replicas?"),
        (
            ["+student_server.replica=1"],
            "student_server (server.kind=embedded) has no 'replica'; did you mean replicas?",
        ),
        (["+cluster.executer=x"], "cluster.executor=local; did you mean executor?"),
        (["sizes.lrr=1"], "sizes has no 'lrr'; did you mean lr?"),
        (["+sizes.lrr=1"], "sizes has no 'lrr'; did you mean lr?"),
        (["+sampling.temprature=1"], "sampling has no 'temprature'; did you mean temperature?"),
        (["+dta=1"], "unknown key dta; did you mean data?"),
        (
            ["stages.train.objective={kind:sft,beta:1}"],
            "its value has a key that is new there; give that one as +stages.train",
        ),
    ],
)
def test_an_unknown_key_names_its_place_and_the_nearest(
    launch_here: Launch, tmp_path: Path, words: list[str], said: str
) -> None:
    done = launch_here("+recipe=sft_full", "+scale=tiny", "dry_run=true", *words)
    line = " ".join(done.stderr.split())
    assert done.returncode == 2 and said in line and "To append" not in line, line
    assert words[0].lstrip("+~").split("=")[0].rpartition(".")[0] in line and not (tmp_path / "runs").exists()


def test_run_names_stay_texts(launch_here: Launch, tmp_path: Path) -> None:
    for name in ("1e5", "true"):
        done = launch_here("+recipe=grade", "+scale=tiny", f"input={tmp_path}", "dry_run=true", f"run_name={name}")
        assert done.returncode == 0 and f"output_dir: {tmp_path}/runs/{name}/grade" in done.stdout


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = (
        f"import os, sys; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); os.execv(sys.executable, sys.argv[1:])"
    )
    argv = [
        sys.executable,
        "-c",
        program,
        sys.executable,
        str(ROOT / "launchers" / "run.py"),
        "+recipe=grade",
        "input=x",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, env=dict(os.environ))
    assert (
        done.returncode == 2
        and done.stderr == "error: the folder this shell is in no longer exists: cd to another one\n"
    )
