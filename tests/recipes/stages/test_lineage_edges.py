"""Every edge of recipes/guides/lineage.md: what a stage's result rests on is recorded, and a change of it makes the stage anew."""

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from aiohttp import web
from omegaconf import OmegaConf

from nemo_ext.megatron.checkpoint_files import RECORD
from nemo_ext.megatron.checkpoint_folders import step_folder
from nemo_ext.models.shape import ModelShape
from nemo_ext.records import file_records, manifest
from recipes import run_stage
from tests.nemo_ext.megatron.checkpoints import cheap_values, write_model
from tests.nemo_ext.serving.fake_server import FakeServer, reply_to
from tests.recipes.conftest import external, lines, write_config

ASKED = {"name": "p", "template": "base", "user": "Q: {problem}"}
JUDGED = {"name": "j", "template": "base", "user": "{problem} | {expected_answer} | {predicted_answer}"}
COMPARED = {"name": "c", "template": "base", "user": "{problem} ## {other_problem}"}
NEAR = ("Ava has 7 pens and buys 3 boxes of 4 pens.", "Ben has 7 pens and buys 3 boxes of 4 pens.")
TEXT = {"tokenizer.json", "tokenizer_config.json"}
WHOLE = {"config.json", "model.safetensors", *TEXT}
ROWS = [
    {
        "id": str(i), "benchmark": "b", "sample": 0, "problem_source": "math", "problem": f"P{i}", "generation": f"G \\boxed{{{i}}}",
        "expected_answer": str(i), "predicted_answer": f"{i}?", "is_correct": True, "verdict": "undecided",
    }
    for i in range(4)
]  # fmt: skip


async def says_true(request: web.Request, _: int) -> web.StreamResponse:
    body = await request.json()
    solution = [turn["content"] for turn in body.get("messages", []) if turn["role"] == "assistant"]
    return reply_to(body, f"reward:{len(solution[0])}.5" if solution else r"True \boxed{1}")


@pytest.fixture
def weights(model: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A model's folder of our own, to change things in."""
    folder = tmp_path / "model"
    shutil.copytree(model["hf_path"], folder)
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    return {**model, "name": "fake", "hf_path": str(folder)}


class Walk:
    """One stage, run again and again in one folder."""

    def __init__(self, folder: Path, uses: str, keys: dict[str, Any]) -> None:
        self.folder, self.uses, self.keys = folder, uses, keys
        self.digest = ""

    def run(self) -> bytes:
        path = write_config(self.folder, self.uses, self.keys)
        run_stage.run(path)
        self.digest = manifest.read(self.folder)["config_hash"]
        assert self.why() is None
        return b"".join(Path(each["path"]).read_bytes() for each in self.done["outputs"])

    def why(self) -> str | None:
        return manifest.out_of_date(self.folder, self.digest)

    def why_anew(self) -> str | None:
        """Why the launcher would run it again with the keys that it has now."""
        content = OmegaConf.to_container(OmegaConf.load(write_config(self.folder, self.uses, self.keys)))
        assert isinstance(content, dict)
        return manifest.out_of_date(self.folder, run_stage.config_hash({str(k): v for k, v in content.items()}))

    @property
    def done(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / manifest.DONE).read_text()))

    def names(self, kind: str) -> set[str]:
        return {Path(each["path"]).name for each in self.done[kind]}


@pytest.fixture
def walk(rows: Callable[..., str], weights: dict[str, Any], fake: Any, tmp_path: Path) -> Callable[[str], Walk]:
    def served(server: FakeServer) -> dict[str, Any]:
        return {"model": weights, "server": external(server)}

    def start(uses: str) -> Walk:
        server = fake(says_true)
        checkpoints = {"checkpoints": str(tmp_path / "train"), "model": weights, "dtype": "fp32"}
        keys: dict[str, Callable[[], dict[str, Any]]] = {
            "generate": lambda: served(server) | {"input": rows(ROWS), "by_source": {"math": {"prompt": ASKED}}},
            "evaluate": lambda: served(server) | {"benchmarks": rows(ROWS), "prompt": ASKED},
            "judge_answers": lambda: served(server) | {"input": rows(ROWS), "prompt": JUDGED},
            "score_rewards": lambda: served(server) | {"input": rows(ROWS)},
            "decontaminate": lambda: (
                served(server)
                | {"prompt": COMPARED, "inputs": [rows([*_problems(NEAR[0]), *ROWS])], "benchmarks": rows(_problems(NEAR[1]))}
            ),
            "filter": lambda: {
                "input": rows(ROWS), "model": weights,
                "steps": [{"name": "solution_too_long", "params": {"max_tokens": 50}}],
            },
            "prepare_sft": lambda: {"input": rows(ROWS), "model": weights | {"chat_template": "llama3.jinja"}, "prompt": ASKED | {"template": "chat"}, "validation_fraction": 0.5},
            "grade": lambda: {"input": rows(ROWS)},
            "publish_data": lambda: {"input": rows(ROWS), "name": "set"},
            "match_coverage": lambda: {"first": rows(ROWS), "second": rows(ROWS), "keep": "first"},
            "average": lambda: checkpoints | {"steps": [10, 20]},
            "export_hf": lambda: checkpoints,
        }  # fmt: skip
        if uses in ("average", "export_hf"):
            _checkpoints(tmp_path / "train", Path(weights["hf_path"]))
        return Walk(tmp_path / "out", uses, keys[uses]())

    return start


def _problems(*texts: str) -> list[dict[str, Any]]:
    return [
        {"id": f"x{n}", "benchmark": "b", "problem": text, "expected_answer": "19"} for n, text in enumerate(texts)
    ]


def _checkpoints(train: Path, hf: Path, steps: tuple[int, ...] = (10, 20)) -> None:
    for step in steps:
        folder = step_folder(train / "checkpoints", step)
        write_model(folder, ModelShape.from_hf(hf), torch.bfloat16, True, cheap_values(step))


RESTS_ON = {
    "generate": ({"output.jsonl"}, WHOLE),
    "evaluate": ({"output.jsonl"}, WHOLE),
    "judge_answers": ({"output.jsonl"}, WHOLE),
    "score_rewards": ({"output.jsonl"}, WHOLE),
    "decontaminate": ({"output.jsonl"}, WHOLE),
    "filter": ({"output.jsonl"}, {"config.json", *TEXT}),
    "prepare_sft": ({"output.jsonl"}, {"config.json", "llama3.jinja", *TEXT}),
    "grade": ({"output.jsonl"}, set()),
    "publish_data": ({"output.jsonl"}, set()),
    "match_coverage": ({"output.jsonl"}, set()),
    "average": ({RECORD}, {"config.json", *TEXT}),
    "export_hf": ({RECORD}, {"config.json", *TEXT}),
}


def flip(path: Path) -> Callable[[], None]:
    """Change a byte and put the date back; returns what undoes it."""
    content, before = path.read_bytes(), path.stat()
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def undo() -> None:
        path.write_bytes(content)

    return undo


@pytest.mark.parametrize("uses", sorted(RESTS_ON))
def test_a_change_of_any_file_it_read_or_wrote_is_seen(walk: Callable[[str], Walk], uses: str) -> None:
    stage = walk(uses)
    made = stage.run()
    inputs, model_files = RESTS_ON[uses]
    assert stage.names("inputs") == inputs and model_files <= stage.names("model_files")
    assert bool(stage.names("model_files")) == bool(model_files)
    for kind, word in manifest.KINDS.items():
        for path in [Path(each["path"]) for each in stage.done[kind]]:
            if "nemo_ext" in path.parts or not path.stat().st_size:
                continue  # a template of this repository; nothing to change
            undo = flip(path)
            assert stage.why() == f"{word} {path} changed"
            undo()
            assert stage.why() is None, f"{path} is what it was"
    for path in [Path(each["path"]) for each in stage.done["outputs"]]:
        path.unlink()
        assert stage.why() == f"output {path} is gone"
        assert stage.run() == made, "the right bytes again"


@pytest.mark.parametrize(
    "uses", [name for name, (inputs, _) in sorted(RESTS_ON.items()) if inputs == {"output.jsonl"}]
)
def test_one_more_input_is_seen(walk: Callable[[str], Walk], uses: str) -> None:
    stage = walk(uses)
    stage.run()
    folder = Path(stage.done["inputs"][0]["path"]).parent
    (folder / "output_00001.jsonl").write_bytes(
        (folder / "output.jsonl").read_bytes().replace(b'"id": "', b'"id": "z')
    )
    assert str(stage.why()).endswith("output_00001.jsonl is new")


def test_one_more_checkpoint_is_seen_by_an_export_of_all(walk: Callable[[str], Walk], tmp_path: Path) -> None:
    stage = walk("export_hf")
    stage.run()
    _checkpoints(tmp_path / "train", Path(stage.keys["model"]["hf_path"]), steps=(30,))
    assert str(stage.why()).endswith("step_0000030/checkpoint.json is new")


@pytest.mark.parametrize("kind", ["gone", "emptied", "cut", "edited"])
@pytest.mark.parametrize(
    "uses", ["grade", "filter", "judge_answers", "score_rewards", "decontaminate", "publish_data"]
)
def test_damaged_rows_are_made_again(walk: Callable[[str], Walk], uses: str, kind: str) -> None:
    stage = walk(uses)
    made = stage.run()
    path = Path(stage.done["outputs"][0]["path"])
    if kind == "gone":
        path.unlink()
    else:
        path.write_bytes({"emptied": b"", "cut": path.read_bytes()[:-10], "edited": path.read_bytes()[::-1]}[kind])
    assert stage.why() is not None
    assert stage.run() == made


SERVED = ("generate", "evaluate", "judge_answers", "score_rewards", "decontaminate")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "chat_template.jinja"])
@pytest.mark.parametrize("uses", SERVED)
def test_another_model_under_the_same_name_answers_for_itself(
    walk: Callable[[str], Walk], uses: str, name: str
) -> None:
    stage = walk(uses)
    stage.run()
    paid, before = lines(stage.folder / "completions.jsonl"), manifest.read(stage.folder)["models"]
    stage.run()
    assert lines(stage.folder / "completions.jsonl") == paid, "the same model is not asked again"
    path = Path(stage.keys["model"]["hf_path"]) / name
    path.write_bytes((path.read_bytes() if path.exists() else b"") + b"\n")
    if name != "chat_template.jinja":  # which was not there
        assert stage.why() == f"model file {path} changed"
    stage.run()
    keys = [row["key"] for row in lines(stage.folder / "completions.jsonl")]
    assert len(keys) == len(set(keys)) == 2 * len(paid) > 0
    after = manifest.read(stage.folder)["models"]
    assert after.keys() == before.keys() and after != before


@pytest.mark.parametrize("uses", SERVED)
def test_another_model_of_an_external_server_answers_for_itself(
    walk: Callable[[str], Walk], fake: Any, uses: str
) -> None:
    server, stage = fake(says_true), walk(uses)
    server.models = [{"id": "first"}]
    stage.keys |= {"any_model": True, "server": external(server) | {"model": None}}
    stage.run()
    asked = len(server.bodies)
    stage.run()
    assert len(server.bodies) == asked > 0
    server.models = [{"id": "second"}]
    stage.run()
    assert len(server.bodies) == 2 * asked
    assert {body["model"] for body in server.bodies[asked:]} == {"second"}
    assert manifest.read(stage.folder)["models"] == {"second": "as served"}


@pytest.mark.parametrize("uses", SERVED)
def test_a_finished_stage_asks_at_another_address_which_model_is_there(
    walk: Callable[[str], Walk], fake: Any, uses: str
) -> None:
    stage, first, second = walk(uses), fake(says_true), fake(says_true)
    second.models = [{"id": "second"}]
    for server in (first, second):
        stage.keys |= {"any_model": True, "server": external(server) | {"model": None}}
        assert stage.digest == "" or stage.why_anew() == "its config changed"
        stage.run()
    assert len(second.bodies) == len(first.bodies) > 0
    if uses == "evaluate":
        assert json.loads((stage.folder / "scores.json").read_text())["model"] == "second"
        assert json.loads((stage.folder / "scores.json").read_text())["contract"]["model_hash"] == "second, as served"


@pytest.mark.parametrize("uses", SERVED)
def test_what_was_set_aside_answers_for_its_own_model_alone(walk: Callable[[str], Walk], fake: Any, uses: str) -> None:
    server, stage = fake(says_true), walk(uses)
    asked = []
    for number, model in enumerate(("first", "second", "first")):
        server.models, before = [{"id": model}], len(server.bodies)
        stage.keys |= {"any_model": True, "server": external(server) | {"model": None}}
        stage.run()
        stage.folder.rename(stage.folder.with_name(f"{stage.folder.name}.old{number + 1}"))  # as redo=true does
        asked.append(len(server.bodies) - before)
    assert asked[0] == asked[1] > 0
    assert asked[2] == 0


@pytest.mark.parametrize("uses", SERVED)
def test_servers_of_different_models_are_refused(walk: Callable[[str], Walk], fake: Any, uses: str) -> None:
    stage, servers = walk(uses), [fake(says_true), fake(says_true)]
    servers[1].models = [{"id": "second"}]
    urls = [server.endpoint.url for server in servers]
    stage.keys |= {"any_model": True, "server": external(servers[0]) | {"model": None, "urls": urls}}
    with pytest.raises(ValueError, match="different models: .* has fake, .* has second"):
        stage.run()
    assert not servers[0].bodies and not servers[1].bodies


def test_scores_say_under_which_other_name_the_model_was_served(walk: Callable[[str], Walk], fake: Any) -> None:
    stage = walk("evaluate")
    stage.keys["model"] = {**stage.keys["model"], "name": "mine"}
    stage.run()
    said = json.loads((stage.folder / "scores.json").read_text())
    assert said["contract"]["model_hash"].endswith(", served as fake")
    assert manifest.read(stage.folder)["models"] == {"mine": said["contract"]["model_hash"]}


def test_the_shards_of_a_stage_read_a_model_s_files_once(
    walk: Callable[[str], Walk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    plain = file_records.sha256_file
    monkeypatch.setattr(file_records, "sha256_file", lambda path: (read.append(path.name), plain(path))[1])
    monkeypatch.setattr(file_records, "RACY_NS", 0)
    stage = walk("generate")
    weights = Path(stage.keys["model"]["hf_path"]) / "model.safetensors"
    for shard, changed in ((0, False), (1, False), (2, True)):
        if changed:
            flip(weights)
            time.sleep(0.05)  # longer than a file system counts as one moment
        monkeypatch.setattr(file_records, "_known", {})  # another process
        part = Walk(tmp_path / "solve" / f"shard_{shard}", "generate", stage.keys | {"shards": 3, "shard": shard})
        with contextlib.suppress(ValueError):  # a shard without rows
            part.run()
        assert read.count("model.safetensors") == (2 if changed else 1)


@pytest.mark.parametrize("what", ["the model", "the rows"])
def test_what_changes_while_a_stage_runs_is_not_certified(walk: Callable[[str], Walk], fake: Any, what: str) -> None:
    stage = walk("generate")
    model = Path(stage.keys["model"]["hf_path"]) / "model.safetensors"
    rows = Path(stage.keys["input"]) / "output.jsonl"
    changed = []

    async def change(request: web.Request, _: int) -> web.StreamResponse:
        if not changed:
            await asyncio.sleep(0.05)  # longer than a file system counts as one moment
            path = model if what == "the model" else rows
            changed.append(path)
            path.write_bytes(path.read_bytes().replace(b"weights", b"strengt", 1).replace(b'"P3"', b'"P4"'))
        return reply_to(await request.json())

    stage.keys["server"] = external(fake(change))
    with pytest.raises(ValueError, match=r"was changed (while|meanwhile)"):
        stage.run()
    assert not (stage.folder / manifest.DONE).exists()
    stage.run()


def test_the_scores_name_the_model_that_answered(walk: Callable[[str], Walk]) -> None:
    stage, hashes = walk("evaluate"), []
    for change in (b"", b"\n"):
        path = Path(stage.keys["model"]["hf_path"]) / "model.safetensors"
        path.write_bytes(path.read_bytes() + change)
        stage.run()
        hashes.append(json.loads((stage.folder / "scores.json").read_text())["contract"]["model_hash"])
        assert manifest.read(stage.folder)["models"] == {"fake": hashes[-1]}
    assert hashes[0] != hashes[1]


def test_another_choice_of_the_other_set_is_carried_out(walk: Callable[[str], Walk]) -> None:
    """The rows that are written are the first set's, which has not changed."""
    stage = walk("match_coverage")
    stage.run()
    assert len(lines(stage.folder / "output.jsonl")) == 4
    second = Path(stage.keys["second"]) / "output.jsonl"
    second.write_bytes(b"".join(second.read_bytes().splitlines(keepends=True)[:2]))
    assert stage.why() == f"input {second} changed"
    stage.run()
    assert [row["id"] for row in lines(stage.folder / "output.jsonl")] == ["0", "1"]
