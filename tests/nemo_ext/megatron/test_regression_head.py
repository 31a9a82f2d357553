"""A regression head trains alike on every topology, goes on bit for bit, and is transformers' classifier when exported."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from nemo_ext.megatron import checkpoint_files
from nemo_ext.megatron.check_settings import validate
from nemo_ext.megatron.checkpoint_files import HEAD, RECORD, read_record, write_record
from nemo_ext.megatron.checkpoint_folders import read_model, select_steps
from nemo_ext.megatron.data.token_folder import PackedData
from nemo_ext.megatron.plan.flops import matmul_parameters
from nemo_ext.megatron.plan.memory import checkpoint_bytes, stage_memory, stage_parameters
from nemo_ext.megatron.settings import TrainSettings
from nemo_ext.megatron.weights.average import average_to_hf
from nemo_ext.megatron.weights.export import export_hf
from nemo_ext.megatron.weights.hf import RandomSource
from nemo_ext.models.head import SCORE, Regression, Vocabulary, described, with_labels
from nemo_ext.models.published_shapes import SHAPES
from nemo_ext.models.shape import ModelShape
from tests.nemo_ext.megatron.checkpoints import cheap_values, save_shape, write_model
from tests.nemo_ext.megatron.families import FAMILIES, save_family
from tests.nemo_ext.megatron.ranks import TOPOLOGIES_OF_TWO, join_ranks, run_ranks, start_ranks
from tests.nemo_ext.megatron.regression import NUM_ATTRIBUTES, save_rated, write_objectives
from tests.nemo_ext.megatron.test_average import SMALL
from tests.nemo_ext.megatron.tiny import save_llama

RUNS = "tests.nemo_ext.megatron.regression"
SAMPLES, STEPS, FIRST = 32, 4, 2
REGRESSION = {"kind": "regression"}
CASES: dict[int, dict[str, dict[str, Any]]] = {
    1: {"one process": {}},
    2: TOPOLOGIES_OF_TWO,
    4: {
        "sequence, context": {"tp": 2, "sequence_parallel": True, "cp": 2},
        "sequence, pipeline": {"tp": 2, "sequence_parallel": True, "pp": 2},
    },
}
ELSEWHERE = [name for cases in CASES.values() for name in cases if name != "one process"]
LOGITS = ["one process", "tensor", "sequence", "pipeline", "context"]
"""Topologies at which an objective asks for the logits."""
Lines = list[dict[str, Any]]

pytestmark = pytest.mark.timeout(300)  # several launches of real processes; seconds each on a quiet machine


@pytest.fixture(scope="module")
def folder(workspace: Path) -> Path:
    return write_objectives(workspace / "regression_objectives")


@pytest.fixture(scope="module")
def places(workspace: Path) -> tuple[Path, Path]:
    """A model whose output layer is its embedding, and samples with attributes."""
    save_llama(workspace / "regression_model", num_hidden_layers=4, tie_word_embeddings=True)
    return workspace / "regression_model", save_rated(workspace / "rated", 2 * SAMPLES)


def case(output: Path, places: tuple[Path, Path], chosen: dict[str, Any], **changes: Any) -> dict[str, Any]:
    settings = {"objective": chosen, "global_batch_size": SAMPLES, "lr": 1e-3, "pack_length": 128}
    model, data = map(str, places)
    changes = {"train_iters": STEPS, "save_interval": FIRST} | changes
    return {"hf": model, "data": data, "validation": data, "output": str(output), "settings": settings | changes}


@pytest.fixture(scope="module")
def runs(workspace: Path, folder: Path, places: tuple[Path, Path]) -> dict[tuple[str, str], Lines]:
    """{(kind of objective, topology): lines of metrics.jsonl}; regression's pipeline and, called "resumed", one that
    stopped after two of its steps have checkpoints."""
    found = {}
    for size, topologies in CASES.items():
        names = [("regression", name) for name in topologies]
        names += [(kind, name) for kind in ("sft", "from_logits") for name in topologies if name in LOGITS]
        cases = {
            (kind, name): case(workspace / kind / name.replace(" ", "_"), places, {"kind": kind}, **topologies[name])
            | {"save": (kind, name) == ("regression", "pipeline")}
            for kind, name in names
        }
        if size == 2:
            again = case(workspace / "regression" / "resumed", places, REGRESSION, pp=2)
            cases["regression", "stopped"] = again | {"settings": again["settings"] | {"train_iters": FIRST}}
            cases["regression", "resumed"] = again
        argument = {"cases": list(cases.values()), "objectives": str(folder)}
        results = run_ranks(size, RUNS, "train_runs", argument)[0]
        found |= {name: result["lines"] for name, result in zip(cases, results, strict=True)}
    return found


def figures(lines: Lines) -> Lines:
    kept = [{k: line[k] for k in ("loss", "grad_norm", "validation_loss") if k in line} for line in lines]
    return [line for line in kept if line]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_losses_do_not_depend_on_topology(runs: dict[tuple[str, str], Lines], name: str) -> None:
    ours, theirs = (runs["regression", topology] for topology in (name, "one process"))
    assert len(figures(ours)) == STEPS + 2
    for line, expected in zip(figures(ours), figures(theirs), strict=True):
        assert line == pytest.approx(expected, rel=1e-5)
    for line, expected in zip(ours, theirs, strict=True):
        assert line.get("figures", {}) == pytest.approx(expected.get("figures", {}), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", LOGITS)
def test_kept_logits_give_the_losses_of_sft(runs: dict[tuple[str, str], Lines], name: str) -> None:
    for line, expected in zip(figures(runs["from_logits", name]), figures(runs["sft", name]), strict=True):
        assert line == pytest.approx(expected, rel=1e-5)


def test_a_new_head_is_the_same_on_every_topology(places: tuple[Path, Path]) -> None:
    shape = ModelShape.from_hf(places[0]).with_head(Regression(NUM_ATTRIBUTES))
    expected = RandomSource(shape, TrainSettings().seed).read(SCORE).tolist()
    for size, topologies in CASES.items():
        argument = {"hf": str(places[0]), "cases": list(topologies.values())}
        for rank in run_ranks(size, RUNS, "heads", argument):
            assert all(head in (expected, None) for head in rank)
            assert any(head is not None for head in rank)


def classifier(places: tuple[Path, Path]) -> Any:
    """transformers' own, of the start model and the first head."""
    body = AutoModelForCausalLM.from_pretrained(places[0], dtype=torch.float32)
    config = AutoConfig.from_pretrained(places[0], num_labels=NUM_ATTRIBUTES)
    model = AutoModelForSequenceClassification.from_config(config)
    model.model.load_state_dict(body.model.state_dict())
    shape = ModelShape.from_hf(places[0]).with_head(Regression(NUM_ATTRIBUTES))
    model.score.weight.data = RandomSource(shape, TrainSettings().seed).read(SCORE)
    return model


def mean_error(model: Any, folder: Path) -> torch.Tensor:
    data = PackedData.open(folder)
    samples = [torch.tensor(data.sample(index)[0].astype(int))[None] for index in range(len(data))]
    outputs = torch.cat([model(sample).logits for sample in samples])
    return ((outputs - torch.from_numpy(data.columns["attributes"].copy())) ** 2).mean()


def test_the_loss_and_its_gradient_are_those_of_transformers(
    folder: Path, places: tuple[Path, Path], tmp_path: Path
) -> None:
    whole = case(tmp_path, places, REGRESSION, global_batch_size=2 * SAMPLES, train_iters=1) | {"save": False}
    lines = run_ranks(1, RUNS, "train_runs", {"cases": [whole], "objectives": str(folder)})[0][0]["lines"]
    model = classifier(places)
    loss = mean_error(model, places[1])
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert lines[0]["validation_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert lines[1]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert lines[1]["grad_norm"] == pytest.approx(float(norm), rel=1e-4)


def test_it_goes_on_bit_for_bit(runs: dict[tuple[str, str], Lines], workspace: Path, tmp_path: Path) -> None:
    straight, resumed = (
        [line for line in figures(runs["regression", name]) if "loss" in line] for name in ("pipeline", "resumed")
    )
    assert len(straight) == STEPS and straight == resumed
    assert runs["regression", "pipeline"][-1] == runs["regression", "resumed"][-1], "the last evaluation"
    folders = [
        select_steps(workspace / "regression" / name / "checkpoints", [STEPS])[0] for name in ("pipeline", "resumed")
    ]
    source = read_model(folders[0].parent)[0]
    exports = [
        load_file(export_hf(step, source, tmp_path / step.parents[1].name, "fp32") / "model.safetensors")
        for step in folders
    ]
    assert all(torch.equal(exports[0][name], exports[1][name]) for name in exports[0])


def test_transformers_opens_what_is_exported(
    runs: dict[tuple[str, str], Lines], workspace: Path, places: tuple[Path, Path], tmp_path: Path
) -> None:
    checkpoints = workspace / "regression" / "pipeline" / "checkpoints"
    assert read_model(checkpoints)[1].head == Regression(NUM_ATTRIBUTES)
    (last,) = select_steps(checkpoints, [STEPS])
    out = export_hf(last, places[0], tmp_path / "hf", "fp32")
    config, weights = json.loads((out / "config.json").read_text()), load_file(out / "model.safetensors")
    assert config["architectures"] == ["LlamaForSequenceClassification"] and config["tie_word_embeddings"] is True
    assert "lm_head.weight" not in weights
    model, info = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    with torch.no_grad():
        error = float(mean_error(model.eval(), places[1]))
    assert error == pytest.approx(runs["regression", "pipeline"][-1]["validation_loss"], rel=1e-5)
    assert error != pytest.approx(runs["regression", "pipeline"][0]["validation_loss"], rel=1e-3), "it was trained"


def test_a_record_written_again_names_the_head(
    runs: dict[tuple[str, str], Lines], workspace: Path, places: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copytree(workspace / "regression" / "pipeline" / "checkpoints", tmp_path / "checkpoints")
    (step,) = select_steps(tmp_path / "checkpoints", [STEPS])
    (step / RECORD).unlink()
    assert checkpoint_files.main(["checkpoint_files", str(step)]) == 0
    assert read_record(step)["trained_on"] == {HEAD: described(Regression(NUM_ATTRIBUTES))}
    assert SCORE in load_file(export_hf(step, places[0], tmp_path / "hf", "bf16") / "model.safetensors")


def test_an_average_scores_as_transformers_does(
    runs: dict[tuple[str, str], Lines], workspace: Path, places: tuple[Path, Path], tmp_path: Path
) -> None:
    steps = select_steps(workspace / "regression" / "pipeline" / "checkpoints", [FIRST, STEPS])
    out = average_to_hf(steps, places[0], tmp_path / "average", "fp32")
    both = [
        load_file(export_hf(step, places[0], tmp_path / step.name, "fp32") / "model.safetensors") for step in steps
    ]
    score = load_file(out / "model.safetensors")[SCORE]
    assert torch.equal(score, (both[0][SCORE] + both[1][SCORE]) / 2) and not torch.equal(*(b[SCORE] for b in both))
    ours = run_ranks(1, RUNS, "outputs", {"hf": str(out), "data": str(places[1])})[0]
    model, data = AutoModelForSequenceClassification.from_pretrained(out).eval(), PackedData.open(places[1])
    with torch.no_grad():
        theirs = [model(torch.tensor(data.sample(i)[0].astype(int))[None]).logits[0] for i in range(len(data))]
    torch.testing.assert_close(torch.tensor(ours), torch.stack(theirs), rtol=1e-5, atol=1e-5)


def test_an_untouched_classifier_comes_back_bit_for_bit(
    folder: Path, places: tuple[Path, Path], tmp_path: Path
) -> None:
    save_llama(tmp_path / "body", dtype=torch.bfloat16)
    labels = {0: "helpful", 1: "correct", 2: "brief"}
    model = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "body", num_labels=NUM_ATTRIBUTES, id2label=labels, dtype=torch.bfloat16
    )
    model.save_pretrained(tmp_path / "hf")
    still = {"tp": 2, "train_iters": 1, "lr": 0.0, "precision": "bf16"}
    run = case(tmp_path / "out", (tmp_path / "hf", places[1]), REGRESSION, **still)
    result = run_ranks(2, RUNS, "train_runs", {"cases": [run], "objectives": str(folder)})[0][0]["result"]
    out = export_hf(Path(result["checkpoint"]), tmp_path / "hf", tmp_path / "export", "bf16")
    before, after = (load_file(each / "model.safetensors") for each in (tmp_path / "hf", out))
    assert before.keys() == after.keys() and SCORE in after
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert AutoConfig.from_pretrained(out).id2label == labels


SFT = {"kind": "sft"}


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (SFT, REGRESSION, r"head \(\{\"kind\": \"vocabulary\"\}, now \{\"kind\": \"regression\", \"outputs\": 3\}\)"),
        (REGRESSION, SFT, r"head \(\{\"kind\": \"regression\", \"outputs\": 3\}, now \{\"kind\": \"vocabulary\"\}\)"),
        (REGRESSION, REGRESSION | {"outputs": 2}, r"head \(\{.*\"outputs\": 3\}, now \{.*\"outputs\": 2\}\)"),
    ],
)
def test_a_checkpoint_of_another_head_is_refused(
    folder: Path,
    places: tuple[Path, Path],
    tmp_path: Path,
    first: dict[str, Any],
    second: dict[str, Any],
    told: str,
) -> None:
    cases = [case(tmp_path, places, chosen, train_iters=n) for n, chosen in ((1, first), (2, second))]
    processes = start_ranks(1, RUNS, "train_runs", {"cases": cases, "objectives": str(folder)})
    with pytest.raises(AssertionError, match=told):
        join_ranks(processes)


def test_checkpoints_of_different_heads_are_not_averaged(tmp_path: Path) -> None:
    hf, shape = save_shape(tmp_path / "hf", SMALL), SMALL.with_head(Regression(2))
    plain, scored, fewer = (
        write_model(tmp_path / name, each, torch.float32, False, cheap_values(1))
        for name, each in (("plain", SMALL), ("scored", shape), ("fewer", SMALL.with_head(Regression(1))))
    )
    write_record(scored, {HEAD: described(Regression(2))})
    write_record(fewer, {HEAD: described(Regression(1))})
    for pair, told in (((plain, scored), "vocabulary head and .*scored has a"), ((fewer, scored), "of 1 output and ")):
        with pytest.raises(
            ValueError, match=rf"{told}.*regression head of 2 outputs: they are not checkpoints of one"
        ):
            average_to_hf(pair, hf, tmp_path / "out", "fp32")
    config = json.loads((hf / "config.json").read_text())
    labelled = with_labels(config, "LlamaForSequenceClassification", 1)
    (hf / "config.json").write_text(json.dumps(labelled))
    for checkpoint, wanted in ((scored, "regression head of 2 outputs"), (plain, "vocabulary head")):
        with pytest.raises(
            ValueError, match=rf"has a {wanted}: the start model has a regression head of 1 output, and a"
        ):
            export_hf(checkpoint, hf, tmp_path / "out", "fp32")
    assert not (tmp_path / "out").exists()
    score = load_file(export_hf(fewer, hf, tmp_path / "out", "fp32") / "model.safetensors")[SCORE]
    assert score.shape == (1, SMALL.hidden_size)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_a_classifiers_config_says_its_head(name: str, outputs: int, tmp_path: Path) -> None:
    """Two outputs are transformers' default, which it does not write down."""
    config = AutoConfig.from_pretrained(save_family(tmp_path / "body", name), num_labels=outputs)
    model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(tmp_path / "hf")
    shape = ModelShape.from_hf(tmp_path / "hf")
    assert shape.head == Regression(outputs) and not shape.tied_embeddings
    assert shape.num_parameters == model.num_parameters()
    assert shape == ModelShape.from_hf(tmp_path / "body").with_head(Regression(outputs))


def test_a_start_model_with_another_head_is_refused(kinds: None) -> None:
    three, two = (SHAPES["Llama-3.1-8B"].with_head(Regression(outputs)) for outputs in (3, 2))
    validate(TrainSettings(objective=REGRESSION), three)
    told = "objective.kind=regression: the start model has a regression head of 2 outputs, and a .* of 3 outputs is wanted"
    with pytest.raises(ValueError, match=told):
        validate(TrainSettings(objective=REGRESSION), two)
    with pytest.raises(ValueError, match=r"objective.kind=sft: .*head of 2 outputs, and a vocabulary head is wanted"):
        validate(TrainSettings(), two)
    with pytest.raises(ValueError, match="regression head of 0 outputs"):
        validate(TrainSettings(objective=REGRESSION | {"outputs": 0}), SHAPES["Llama-3.1-8B"])


def test_padding_that_ends_answers_is_not_named() -> None:
    """transformers would score the token before it, which is not where the model was trained."""
    config = {"eos_token_id": [7, 9], "pad_token_id": 9, "num_labels": 4}
    found = with_labels(config, "LlamaForSequenceClassification", 1)
    assert found["pad_token_id"] is None and "num_labels" not in found and found["id2label"] == {"0": "LABEL_0"}
    assert with_labels(config | {"pad_token_id": 5}, "LlamaForSequenceClassification", 1)["pad_token_id"] == 5


def test_the_plan_counts_the_head(kinds: None) -> None:
    settings = TrainSettings(objective=REGRESSION, pipeline_model_parallel_size=4, make_vocab_size_divisible_by=1)
    for name in ("Llama-3.1-8B", "Qwen2.5-1.5B"):
        shape = SHAPES[name]
        headed = shape.with_head(Regression(NUM_ATTRIBUTES))
        assert sum(stage_parameters(shape, settings, stage) for stage in range(4)) == headed.num_parameters
        assert checkpoint_bytes(shape, settings) == 14 * headed.num_parameters
        rows = shape.vocab_size - NUM_ATTRIBUTES
        assert matmul_parameters(shape) - matmul_parameters(headed) == rows * shape.hidden_size
        towards = TrainSettings(pipeline_model_parallel_size=4)
        assert stage_memory(shape, settings, 3).temporary < stage_memory(shape, towards, 3).temporary
    assert SHAPES["Llama-3.1-8B"].head == Vocabulary()
