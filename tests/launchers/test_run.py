"""The command line as a person uses it: real messages, and real processes where it is about those."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launchers import run
from launchers.planning import resolvers
from tests.composing import RECIPES
from tests.conftest import ROOT
from tests.launchers.conftest import Launch

TINY = ("+recipe=openmathinstruct2", "+scale=tiny")
SMALL = ("+recipe=sft_full", "+scale=tiny")


def launch(runs: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(ROOT / "launchers" / "run.py"), *words]
    environment = {**os.environ, "RUNS_DIR": str(runs), **env}
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)


def one_line(said: str) -> str:
    line = said.rstrip("\n")
    assert line.startswith("error: ") and "\n" not in line, said
    return line


Refusal = Callable[..., str]


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launch_here: Launch) -> Refusal:
    """The one line that a refused command says; nothing may have been made."""

    def refused(*words: str) -> str:
        # what is not refused must not begin either
        monkeypatch.setattr(run, "run_lock", lambda run_dir: pytest.fail(f"{words} was not refused"))
        done = launch_here(*words)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert not (tmp_path / "runs").exists()
        return one_line(done.stderr)

    return refused


def test_without_a_recipe_it_lists_them(tmp_path: Path) -> None:
    done = launch(tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    for name in RECIPES:
        about = [line for line in lines if line.split()[:1] == [name]]
        assert len(about) == 1 and len(about[0].split()) > 5


def test_arguments_without_a_recipe_are_not_a_success(tmp_path: Path) -> None:
    done = launch(tmp_path, "+scale=tiny")
    assert done.returncode == 2 and "openmathinstruct2" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("+recipe=openmathinstruct",), ["+recipe=openmathinstruct: no recipe", "did you mean openmathinstruct2"]),
        ((*TINY, "only=[solv_seeds]"), ["'solv_seeds'", "solve_seeds", "evaluate_teacher"]),
        ((*SMALL, "from_stage=trian"), ["'trian'", "train"]),
        (("+recipe=explore", "input=/tmp", "columns={problem: ask}"), ["no stage of this recipe takes it", "generate, grade"]),
        (("+recipe=choose_answers", "input=/tmp", "split=train"), ["split=train: no stage of this recipe takes it", "filter"]),
        ((*TINY, "columns={problem: ask}"), ["no stage of this recipe takes it"]),
        (("+recipe=deduplicate", "input=/tmp", "columns=[problem]"), ["columns=['problem']", "{problem: query}"]),
        ((*SMALL, "stages.trian.lr=1"), ["trian"]),
        ((*SMALL, "stages.report.ablation.x=rows"), ["a setting that is null", "given in a recipe"]),
        ((*SMALL, "stages.report.ablation={x: rows}"), ["a setting that is null", "given in a recipe"]),
        ((*SMALL, "+stages.trian.lr=1"), ["stages.trian", "train"]),
        ((*SMALL, "stages.train.learning_rate=1"), ["learning_rate", "train"]),
        ((*SMALL, "+stages.train.learning_rate=1"), ["learning_rate", "stages.train"]),
        ((*SMALL, "run_nam=x"), ["run_nam"]),
        ((*SMALL, "+run_nam=x"), ["run_nam", "run_name"]),
        ((*SMALL, "stages.train.lr=abc"), ["stages.train", "abc", "lr"]),
        ((*SMALL, "model@student=llama4"), ["llama4", "llama31_8b"]),
        ((*SMALL, "cluster=mars"), ["mars", "local", "slurm"]),
        ((*SMALL, "+cluster.gpu=1"), ["cluster", "gpu"]),
        ((*SMALL, "cluster=slurm", "cluster.ssh=login1"), ["cluster.ssh is like {host: login1}", "options"]),
        ((*TINY, "server=vlm"), ["vlm", "vllm", "embedded"]),
        ((*TINY, "+server.max_batch=3"), ["max_batch", "max_batch_size"]),
        ((*SMALL, "benchmarks=[gsm9k]"), ["gsm9k", "gsm8k", "aime24"]),
        ((*TINY, "few_shot.solve_math=nothing"), ["nothing", "math_text_detailed"]),
        ((*TINY, "stages.decontaminate.judge=oracle"), ["decontaminate", "'oracle'", "llm", "rule"]),
        ((*SMALL, "sizes.train_iters=181"), ["181", "6"]),
    ],
    ids=lambda value: " ".join(value[-1:]) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_a_mistake_is_told_in_one_line(refusal: Refusal, words: tuple[str, ...], said: list[str]) -> None:
    line = refusal(*words)
    for word in said:
        assert word in line


def test_a_mistake_given_to_a_process_is_no_traceback(tmp_path: Path) -> None:
    done = launch(tmp_path / "runs", *TINY, "cluster=mars")
    assert (done.returncode, done.stdout) == (2, "") and "'cluster/mars'" in one_line(done.stderr)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ((*SMALL, "data=nowhere.jsonl"), "/nowhere.jsonl"),
        ((*SMALL, "data=nowhere-*.parquet"), "/nowhere-*.parquet"),
        ((*SMALL, "data=nowhere", "split=train"), "/nowhere"),
        ((*SMALL, "benchmarks=[nowhere/test.jsonl]"), "/nowhere/test.jsonl"),
        ((*SMALL, "student.hf_path=/nowhere/model"), "stages.prepare_sft.model.hf_path"),
        (("+recipe=match_coverage", "input=.", "second=nowhere"), "/nowhere"),
        (("+recipe=compare", "input=.", "second=nowhere"), "/nowhere"),
        (("+recipe=explore", "input=nowhere"), "/nowhere"),
        (
            ("+recipe=evaluate_checkpoint", "+scale=tiny", "checkpoints=nowhere", "step=1", "sizes.wait_minutes=0"),
            "/nowhere",
        ),
        (("+recipe=openmathinstruct2", "+scale=tiny", "source.gsm8k.path=nowhere.jsonl"), "/nowhere.jsonl"),
    ],
)
def test_missing_data_is_told_before_anything_starts(
    refusal: Refusal, launch_here: Launch, words: tuple[str, ...], missing: str
) -> None:
    line = refusal(*words)
    assert missing in line and "there is no /" in line and "or that key" in line
    planned = launch_here(*words, "dry_run=true")
    assert planned.returncode == 0 and "stages." in planned.stdout + planned.stderr
    assert missing in planned.stderr and planned.stderr.startswith("warning: ")


def test_a_model_that_is_not_read_here_may_be_missing(launch_here: Launch, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"problem": "p"}\n')
    asked = ("input=" + str(tmp_path / "mine.jsonl"), "teacher.hf_path=/nowhere/model", "dry_run=true")
    external = ("server=external", "server.urls=[http://127.0.0.1:9]")
    for words in (("+recipe=generate", *external), ("+recipe=decontaminate", "+scale=tiny")):
        assert "/nowhere/model" not in launch_here(*words, *asked).stderr
    assert "/nowhere/model" in launch_here("+recipe=generate", *asked).stderr


def test_checkpoints_that_are_waited_for_may_be_missing(launch_here: Launch) -> None:
    words = ("+recipe=evaluate_checkpoint", "+scale=tiny", "checkpoints=/nowhere/train", "step=3", "dry_run=true")
    assert "/nowhere/train" not in launch_here(*words).stderr
    assert "there is no /nowhere/train" in launch_here(*words, "sizes.wait_minutes=0").stderr


def test_a_run_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = launch(tmp_path / "file", "+recipe=sft_full", "+scale=tiny")
    assert done.returncode != 0 and "cannot be written" in done.stderr and "RUNS_DIR" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    limited = 'ulimit -f 0; exec "$@"'  # no file may have a byte
    argv = ["bash", "-c", limited, "bash", sys.executable, str(ROOT / "launchers" / "run.py"), "+recipe=toy_models"]
    env = {**os.environ, "RUNS_DIR": str(tmp_path)}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: "), done.stderr
    assert "cannot be written: File too large" in done.stderr and "Traceback" not in done.stderr


def test_missing_gpus_name_both_ways_on(refusal: Refusal) -> None:
    line = refusal("+recipe=sft_full", "+cluster.gpus=0")
    for said in ("train", "8 node(s) x 8 GPUs", "1 node with 0", "cluster=", "+scale=tiny"):
        assert said in line


def test_left_out_stage_must_have_finished(refusal: Refusal) -> None:
    line = refusal(*SMALL, "from_stage=train")
    assert "train" in line and "prepare_sft" in line


def test_dry_run_shows_everything_and_starts_nothing(tmp_path: Path, launch_here: Launch) -> None:
    done = launch_here("+recipe=openmathinstruct2", "dry_run=true")
    assert done.returncode == 0
    assert all(line.startswith("warning: ") and "there is no /" in line for line in done.stderr.splitlines())
    assert "# solve_new/shard_0000 (2880 shards, this is the first): 1 node(s) x 8 GPUs" in done.stdout
    assert "-m recipes.run_stage" in done.stdout and "(service)" in done.stdout
    assert "train_iters: 60000" in done.stdout
    assert not (tmp_path / "runs").exists()


def error_on_a_terminal(runs: Path, **env: str) -> str:
    ours, theirs = pty.openpty()
    terminal = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment = {**terminal, "RUNS_DIR": str(runs), "TERM": "xterm-256color", **env}
    argv = [sys.executable, str(ROOT / "launchers" / "run.py"), "+recipe=none"]
    subprocess.run(argv, cwd=ROOT, env=environment, stderr=theirs, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    return text


def test_no_color_is_respected(tmp_path: Path) -> None:
    assert "\x1b[" in error_on_a_terminal(tmp_path)
    plain = error_on_a_terminal(tmp_path, NO_COLOR="1")
    assert "error:" in plain and "\x1b[31" not in plain


def test_paths_of_the_user_are_relative_to_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launch_here: Launch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.jsonl").write_text('{"problem": "p", "expected_answer": "1"}\n')
    shown = launch_here(*SMALL, "dry_run=true", "data=mine.jsonl", "benchmarks=[mine.jsonl]").stdout
    assert f"input: {tmp_path}/mine.jsonl" in shown
    assert f"path: {tmp_path}/mine.jsonl" in shown


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("+recipe=match_coverage", "input=a", "second=b"), ["first: {here}/a", "second: {here}/b"]),
        (("+recipe=compare", "input=a", "second=b"), ["- {here}/a", "- {here}/b"]),
        (("+recipe=grade", "stages.grade.input=a"), ["input: {here}/a"]),
        (("+recipe=explore", "input=a", "stages.explore.inputs=[a, b]"), ["- {here}/b"]),
        ((*SMALL, "student.hf_path=model"), ["hf_path: {here}/model"]),
        ((*SMALL, "student.hf_path=org/model"), ["hf_path: org/model"]),
        ((*SMALL, "data=hf://org/rows", "split=train"), ["input: hf://org/rows"]),
        ((*TINY, "source.math.path=a"), ["path: {here}/a"]),
        ((*TINY, "run_dir=mine"), ["run_dir: {here}/mine", "- {here}/mine", "output_dir: {here}/mine/report"]),
        (("+recipe=toy_models", "publish_dir=mine"), ["target: {here}/mine/tiny_base"]),
    ],
)
def test_every_path_is_relative_to_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launch_here: Launch, words: tuple[str, ...], shown: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    done = launch_here(*words, "dry_run=true")
    for line in shown:
        assert line.format(here=tmp_path) in done.stdout, done.stderr


def test_two_benchmarks_of_one_name_and_other_files_are_refused(tmp_path: Path) -> None:
    """Before, the second took the place of the first, unsaid."""
    with pytest.raises(ValueError, match=r"b/aime.jsonl would be called 'aime', as another one before it is"):
        resolvers.benchmarks(["a/aime.parquet", "b/aime.jsonl"])
    with pytest.raises(ValueError, match="'gsm8k'"):
        resolvers.benchmarks(["gsm8k", "mine/gsm8k.jsonl"])
    with pytest.raises(ValueError, match=r"mine/aime.xlsx: a benchmark of your own is a file that ends in .*\.jsonl"):
        resolvers.benchmarks(["mine/aime.xlsx"])
    assert list(resolvers.benchmarks(["gsm8k", "a/aime.parquet", "b/amc.v2.jsonl"])) == ["gsm8k", "aime", "amc"]
