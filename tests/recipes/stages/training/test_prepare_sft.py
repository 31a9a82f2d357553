import json
from pathlib import Path

import pytest

from nemo_ext.megatron.data.token_folder import PackedData
from tests.recipes.conftest import Ran

PROMPT = {"name": "p", "template": "chat", "system": "", "user": "Solve.\n\n{problem}"}


@pytest.fixture
def prepare(run, rows, model):
    def start(data: list[dict], folder: str = "out", **keys) -> Ran:
        return run(
            "prepare_sft", input=rows(data), model=model, prompt=PROMPT, folder=folder, **{"seq_length": 512, **keys}
        )

    return start


@pytest.fixture
def texts(model):
    """texts(ran)[i] = (what is not trained, what is trained) of sample i."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model["hf_path"])

    def decode(ran: Ran) -> list[tuple[str, str]]:
        data = PackedData.open(ran.folder / "train")
        pairs = []
        for tokens, mask in (data.sample(index) for index in range(len(data))):
            assert (mask[:-1] <= mask[1:]).all(), "the answer comes after the prompt"
            pairs.append((tokenizer.decode(tokens[mask == 0]), tokenizer.decode(tokens[mask == 1])))
        return pairs

    return decode


CHAT = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    "Solve.\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)


def test_every_shape_of_row_trains_its_answer_and_its_end(prepare, texts) -> None:
    ran = prepare(
        [
            {"id": "a", "problem": "P1", "generated_solution": r"S1 \boxed{1}", "expected_answer": "1"},
            {"question": "P2", "answer": "1+1=<<1+1=2>>2\n#### 2"},
            {"problem": "P3", "solution": r"S3 \boxed{3}"},
            {"messages": [{"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}]},
            {"input": "I", "output": "O"},
            {"text": "All of it"},
        ]
    )
    bos, turn, end = "<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>"
    asked = (
        f"{bos}<|start_header_id|>user<|end_header_id|>\n\nU{turn}<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert texts(ran) == [
        (CHAT.format("P1"), r"S1 \boxed{1}" + turn),
        (CHAT.format("P2"), "1+1=2\nThe answer is \\boxed{2}." + turn),
        (CHAT.format("P3"), r"S3 \boxed{3}" + turn),
        (asked, "A" + turn),
        (bos + "I", "O" + end),
        ("", "All of it" + end),
    ]
    data = PackedData.open(ran.folder / "train")
    assert [row["num_tokens"] for row in ran.output] == data.lengths.tolist()
    assert (
        sum(row["num_trained_tokens"] for row in ran.output)
        == data.facts["num_trained_tokens"]
        == ran.manifest["tokens"]["trained"]
    )
    assert ran.output[0]["id"] == "a" and len({row["id"] for row in ran.output}) == 6
    audit = (ran.folder / "audit.txt").read_text()
    assert audit.startswith("--- train sample 0 of 6: ") and audit.count("--- train sample") == 6
    assert CHAT.format("P1") + "\u27e6S1 \\boxed{1}" + turn + "\u27e7\n" in audit


def test_unusable_rows_are_dropped_with_a_reason(run, prepare, model, tmp_path: Path) -> None:
    good = {"problem": "P", "generated_solution": r"S \boxed{1}"}
    lines = [good, {"problem": "P", "answer": "1"}, {"generated_solution": r"\boxed{1}"}, {"messages": []},
             {"messages": [{"role": "user", "content": "U"}]}, {"messages": ["U", "A"]}, {"input": "I", "output": " "}, {"text": ""}]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"problem": "cut\n')
    ran = run("prepare_sft", input=str(path), model=model, prompt=PROMPT)
    assert sorted(ran.reasons) == sorted(
        [
            "no_solution",
            "no_problem",
            "no_assistant_turn",
            "no_assistant_turn",
            "no_text_messages",
            "no_output",
            "no_text",
            "malformed_json",
        ]
    )
    assert (ran.manifest["rows_in"], ran.manifest["rows_out"]) == (9, 1)


def test_too_long_by_one_token(prepare) -> None:
    row = {"text": "1 2 3 4 5 6"}
    length = prepare([row]).output[0]["num_tokens"]
    ran = prepare([row, {"text": "1 2 3 4 5 6 7"}], folder="limit", seq_length=length)
    assert len(ran.output) == 1 and ran.reasons == ["too_long"]
    with pytest.raises(ValueError, match="no row is left.*too_long"):
        prepare([row], folder="none", seq_length=length - 1)


LONG = {"input": "1 2 3", "output": "4 5 6"}  # with BOS and EOS 7 or more tokens, of which the prompt takes 4 or more


def test_an_over_long_answer_is_cut_and_its_end_is_not_trained(prepare, texts) -> None:
    whole = prepare([LONG])
    length, trained = (whole.output[0][key] for key in ("num_tokens", "num_trained_tokens"))
    assert "truncated" not in whole.output[0] and whole.manifest["figures"]["truncated_samples"] == 0
    ran = prepare([LONG, {"text": "1"}], folder="cut", seq_length=length - 1, overlong="truncate")
    assert [row.get("truncated") for row in ran.output] == [True, None]
    assert ran.manifest["figures"]["truncated_samples"] == 1
    assert texts(ran)[0] == ("<|begin_of_text|>1 2 3", "4 5 6"), "all of the answer, but no EOS"
    assert ran.output[0]["num_tokens"] == length - 1
    prompt = length - trained
    ran = prepare([LONG], folder="one", seq_length=prompt + 1, overlong="truncate")
    assert texts(ran) == [("<|begin_of_text|>1 2 3", "4")] and ran.output[0]["num_trained_tokens"] == 1
    ran = prepare([LONG, {"text": "1"}], folder="none", seq_length=prompt, overlong="truncate")
    assert ran.reasons == ["prompt_too_long"] and len(ran.output) == 1


def test_an_over_long_row_may_stop_the_stage(prepare) -> None:
    said = r"output\.jsonl row 2 \(id b\) has \d+ tokens, more than seq_length=4\..*stages\.out\.overlong to drop or truncate"
    with pytest.raises(ValueError, match=said):
        prepare([{"text": "1"}, {"id": "b", **LONG}], seq_length=4, overlong="error")
    with pytest.raises(ValueError, match=r"overlong='cut'; it may be one of \('drop', 'truncate', 'error'\)"):
        prepare([LONG], folder="bad", overlong="cut")


def test_earlier_answers_are_context(prepare, texts) -> None:
    turns = [("user", "U1"), ("assistant", "A1"), ("user", "U2"), ("assistant", "A2")]
    ran = prepare([{"messages": [{"role": role, "content": content} for role, content in turns]}])
    prompt, answer = texts(ran)[0]
    assert answer == "A2<|eot_id|>" and "A1<|eot_id|>" in prompt


def test_a_changed_setting_leaves_no_validation_of_before(prepare) -> None:
    rows = [{"text": str(i)} for i in range(10)]
    assert (prepare(rows, validation_fraction=0.5).folder / "validation").is_dir()
    assert not (prepare(rows).folder / "validation").exists()


@pytest.mark.parametrize(
    ("count", "fraction", "held_out"), [(400, 0.05, 20), (100, 0.3, 30), (7, 0.5, 3), (50, 0.02, 1)]
)
def test_the_split_is_exact(prepare, count: int, fraction: float, held_out: int) -> None:
    data = [{"id": str(i), "text": f"row {i}"} for i in range(count)]
    ran = prepare(data, validation_fraction=fraction)
    split = [row["id"] for row in ran.output if row["split"] == "validation"]
    assert held_out <= len(split) <= held_out + 1 and (count * fraction % 1 or len(split) == held_out)
    assert len(PackedData.open(ran.folder / "validation")) == len(split)
    assert len(PackedData.open(ran.folder / "train")) == count - len(split)
    again = prepare(data, validation_fraction=fraction, folder="again")
    assert again.output == ran.output


def test_no_validation_means_no_folder(prepare) -> None:
    ran = prepare([{"text": "x"}])
    assert not (ran.folder / "validation").exists()
    with pytest.raises(ValueError, match=r"validation_fraction=1\.0; it must be in \[0, 1\)"):
        prepare([{"text": "x"}], validation_fraction=1.0, folder="bad")


def test_a_problem_needs_a_prompt(run, rows, model) -> None:
    with pytest.raises(ValueError, match=r"stages\.out\.prompt is not set"):
        run("prepare_sft", input=rows([{"problem": "P", "solution": r"\boxed{1}"}]), model=model)


def test_a_killed_run_leaves_no_data_folder_that_opens(run, rows, model, monkeypatch, tmp_path: Path) -> None:
    from recipes.stages.training import prepare_sft

    def break_down(self, *args) -> None:
        raise RuntimeError("disk")

    monkeypatch.setattr(prepare_sft.SampleWriter, "_write_row", break_down)
    with pytest.raises(RuntimeError, match="disk"):
        run("prepare_sft", input=rows([{"text": "x"}]), model=model)
    assert not (tmp_path / "out" / "train" / "data.json").exists()
    assert not list((tmp_path / "out").glob("*.jsonl"))


def test_gsm8k(run, model, shared_data: Path) -> None:
    ran = run(
        "prepare_sft",
        input=str(shared_data / "gsm8k_train.jsonl"),
        model=model,
        prompt=PROMPT,
        seq_length=512,
        validation_fraction=0.05,
    )
    assert len(ran.output) + len(ran.dropped) == 7473
    assert set(ran.reasons) <= {"too_long"} and len(ran.output) > 5000
    assert ran.manifest["figures"]["validation_samples"] == pytest.approx(len(ran.output) * 0.05, abs=1)
