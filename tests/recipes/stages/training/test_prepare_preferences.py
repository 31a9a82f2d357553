"""Rows of preferences, labels and ratings as others write them, as token folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemo_ext.megatron import objective
from nemo_ext.megatron.data.token_folder import PackedData
from tests.recipes.conftest import Ran
from tests.recipes.stages.training.test_prepare_sft_rows import LLAMA3, PROMPT, TINY

USER = {"role": "user", "content": "What is 1 + 1?"}
RIGHT, WRONG = ({"role": "assistant", "content": text} for text in ("It is 2.", "It is 3, I think."))
PAIR = {"problem": "What is 1 + 1?", "chosen": "It is 2.", "rejected": "It is 3, I think."}
HELPSTEER2 = ["helpfulness", "correctness", "coherence", "complexity", "verbosity"]


@pytest.fixture
def prepare(run, tmp_path: Path):
    def start(data: list[Any], folder: str = "out", **keys) -> Ran:
        path = tmp_path / f"{folder}.jsonl"
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in data))
        model = {"name": "tiny", "hf_path": str(TINY), "context_length": 512, "chat_template": LLAMA3.name}
        keys = {"prompt": PROMPT, "seq_length": 512, "units": "pairs"} | keys
        return run("prepare_preferences", input=str(path), model=model, folder=folder, **keys)

    return start


def texts(ran: Ran, split: str = "train") -> list[tuple[str, str]]:
    """(what is shown, what is trained) of every sample."""
    from transformers import AutoTokenizer

    tokenizer, data = AutoTokenizer.from_pretrained(TINY), PackedData.open(ran.folder / split)
    samples = (data.sample(i) for i in range(len(data)))
    return [(tokenizer.decode(tokens[mask == 0]), tokenizer.decode(tokens[mask == 1])) for tokens, mask in samples]


LAYOUTS = {
    "problem": PAIR,
    "prompt": {"prompt": USER["content"], "chosen": RIGHT["content"], "rejected": WRONG["content"]},
    "TRL, turns": {"prompt": [USER], "chosen": [RIGHT], "rejected": [WRONG]},
    "TRL, one text": {"prompt": [USER], "chosen": RIGHT["content"], "rejected": WRONG["content"]},
    "TRL, implicit prompt": {"chosen": [USER, RIGHT], "rejected": [USER, WRONG]},
    "UltraFeedback": {
        "prompt": USER["content"], "prompt_id": "x", "chosen": [USER, RIGHT], "rejected": [USER, WRONG],
        "messages": [USER, RIGHT], "score_chosen": 8.0, "score_rejected": 2.5,
    },
    "messages": {"messages": [USER], "chosen": RIGHT["content"], "rejected": WRONG["content"]},
    "HelpSteer2-Preference": {
        "prompt": USER["content"], "response_1": WRONG["content"], "response_2": RIGHT["content"],
        "preference_strength": 2, "preference_statement": "@Response 2 is right.",
    },
    "HelpSteer2-Preference, the other way": {
        "prompt": USER["content"], "response_1": RIGHT["content"], "response_2": WRONG["content"],
        "preference_strength": -1,
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_of_every_layout(prepare, layout: str) -> None:
    ran = prepare([LAYOUTS[layout]])
    (shown, chosen), (shown_again, rejected) = texts(ran)
    assert shown == shown_again and USER["content"] in shown
    assert (chosen, rejected) == ("It is 2.<|eot_id|>", "It is 3, I think.<|eot_id|>")
    assert ran.manifest["figures"] == {"train_pairs": 1, "validation_pairs": 0, "chosen_longer_share": 0.0}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rejected": PAIR["chosen"]}, "same_answers"),
        ({"rejected": PAIR["chosen"] + "<|eot_id|>"}, "same_answers"),
        ({"chosen": None}, "no_chosen"),
        ({"rejected": ""}, "no_rejected"),
        ({"rejected": 3}, "no_text_messages"),
        ({"problem": None}, "no_prompt"),
        ({"rejected": "It is 3. " * 400}, "too_long"),
        ({"chosen": "It is <|eot_id|> 2."}, "special_token"),
        ({"problem": None, "chosen": [USER, RIGHT], "rejected": [USER | {"content": "?"}, WRONG]}, "no_shared_prompt"),
        ({"problem": None, "prompt": "Another", "chosen": [USER, RIGHT], "rejected": [USER, WRONG]}, "no_shared_prompt"),
        ({"response_1": "a", "response_2": "b", "preference_strength": 0}, "no_preference"),
        ({"response_1": "a", "response_2": "b"}, "no_preference"),
    ],
)  # fmt: skip
def test_pairs_that_teach_nothing_are_dropped(prepare, change: dict[str, Any], reason: str) -> None:
    ran = prepare([PAIR, PAIR | change, PAIR])
    assert ran.reasons == [reason] and len(ran.output) == 2
    assert len(PackedData.open(ran.folder / "train")) == 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, "no_reward"),
        ({"chosen_reward": 1.0}, "bad_reward"),
        ({"chosen_reward": float("nan"), "rejected_reward": 0.0}, "bad_reward"),
        ({"chosen_reward": True, "rejected_reward": 0.0}, "bad_reward"),
    ],
)
def test_rewards_that_are_no_numbers(prepare, change: dict[str, Any], reason: str) -> None:
    good = PAIR | {"chosen_reward": 0.75, "rejected_reward": -1}
    ran = prepare([good, PAIR | change, "{broken"], needs=["reward"])
    assert sorted(ran.reasons) in (sorted([reason, "malformed_json"]), ["malformed_json"] * 2)
    assert PackedData.open(ran.folder / "train").columns["reward"].tolist() == [0.75, -1.0]


def test_a_preference_and_its_strength(prepare) -> None:
    row = LAYOUTS["HelpSteer2-Preference, the other way"]
    ran = prepare([row, row | {"preference_strength": 3}], needs=["strength"])
    assert PackedData.open(ran.folder / "train").columns["strength"].tolist() == [1, 1, 3, 3]


def test_labels_come_with_answers_to_other_problems(prepare) -> None:
    def row(problem: str, answer: str, **label: Any) -> dict[str, Any]:
        return {"problem": problem, "generation": answer, **label}

    data = [
        row("A", "a1", is_correct=True),
        row("A", "a2", is_correct=False),
        {"prompt": "B", "completion": "b1", "label": True},
        row("C", "c1", desirable=1),
        row("C", "c2", desirable=None),
        row("C", "c3", label="yes"),
        row("C", "c4", desirable=False),
    ]
    ran = prepare(data, units="labels")
    assert ran.reasons == ["no_label", "bad_label"]
    shown = texts(ran)
    trained = [answer.removesuffix("<|eot_id|>") for _, answer in shown]
    assert trained == ["a1", "b1", "a2", "b1", "b1", "a2", "c1", "b1", "c4", "b1"]
    assert all(shown[i][0] == shown[i + 1][0] for i in range(0, len(shown), 2)), "under its own prompt"
    folder = PackedData.open(ran.folder / "train")
    assert folder.columns["desirable"].tolist() == [1, 1, 0, 0, 1, 1, 1, 1, 0, 0]
    assert ran.manifest["figures"] | {"desirable": 3, "undesirable": 2, "mismatched_cut": 0} == ran.manifest["figures"]
    objective.require_columns(
        objective.load({"kind": "reward_bradley_terry"}), PackedData.open(prepare([PAIR], "pairs").folder / "train")
    )
    with pytest.raises(ValueError, match="holds labels, and objective.kind=dpo trains on pairs"):
        objective.require_columns(objective.load({"kind": "dpo"}), folder)
    with pytest.raises(ValueError, match="objective.kind=sft trains on samples that stand for themselves"):
        objective.require_columns(objective.load({"kind": "sft"}), folder)


def test_one_prompt_alone_has_no_answers_to_others(prepare) -> None:
    with pytest.raises(ValueError, match="all of the 3 samples have one prompt"):
        prepare([{"problem": "A", "generation": f"a{i}", "is_correct": True} for i in range(3)], units="labels")


def test_ratings_of_helpsteer2(prepare) -> None:
    row = {"prompt": USER["content"], "response": "It is 2.", **dict.fromkeys(HELPSTEER2, 4)}
    data = [row, row | {"verbosity": None}, row | {"helpfulness": float("inf")}, {"prompt": "P", "response": "R"}]
    ran = prepare(data, units="ratings", attributes=HELPSTEER2)
    assert len(ran.output) == 2 and "no_rating" in ran.reasons
    folder = PackedData.open(ran.folder / "train")
    assert folder.columns["attributes"].tolist() == [[4, 4, 4, 4, 4], [4, 4, 4, 4, -100]]
    chosen = {"kind": "reward_regression", "attributes": HELPSTEER2}
    objective.require_columns(objective.load(chosen), folder)
    with pytest.raises(ValueError, match="an output would be trained on another attribute's ratings"):
        objective.require_columns(objective.load(chosen | {"attributes": HELPSTEER2[::-1]}), folder)


def test_units_are_held_out_as_a_whole(prepare) -> None:
    data = [PAIR | {"id": f"{i}", "problem": f"What is {i} + 1?"} for i in range(20)]
    ran = prepare(data, validation_fraction=0.1)
    assert [len(PackedData.open(ran.folder / split)) for split in ("train", "validation")] == [36, 4]
    held = [row["id"] for row in ran.output if row["split"] == "validation"]
    assert all(
        f"What is {id_} + 1?" in shown for id_, (shown, _) in zip(held, texts(ran, "validation")[::2], strict=True)
    )
    alone = prepare(data, "again", validation_fraction=0.1, workers=2)
    for name in ("tokens.bin", "loss_mask.bin", "offsets.npy"):
        assert (alone.folder / "train" / name).read_bytes() == (ran.folder / "train" / name).read_bytes()
    assert "train sample 0 of 36" in (ran.folder / "audit.txt").read_text()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"units": "triples"}, "units='triples'"),
        ({"units": "labels", "needs": ["reward"]}, "with units=pairs"),
        ({"needs": ["rewards"]}, "may name reward and strength"),
        ({"units": "ratings"}, "units=ratings needs them"),
        ({"attributes": ["a"]}, "no other units do"),
    ],
)
def test_settings_that_make_no_sense(keys: dict[str, Any], message: str) -> None:
    from omegaconf import OmegaConf

    from recipes.stages.training.prepare_preferences import Config, check

    given = {"name": "p", "input": "x", "units": "pairs"} | keys
    with pytest.raises(ValueError, match=message):
        check(OmegaConf.merge(OmegaConf.structured(Config), given))


def test_columns_under_other_names(prepare) -> None:
    row = {"question": "What is 1 + 1?", "better": "It is 2.", "worse": "It is 3."}
    ran = prepare([row], columns={"chosen": "better", "rejected": "worse"})
    assert [answer for _, answer in texts(ran)] == ["It is 2.<|eot_id|>", "It is 3.<|eot_id|>"]


def test_tokens_are_those_of_prepare_sft(prepare, run, rows) -> None:
    """The chosen side, as the same row would be trained by sft."""
    ran = prepare([PAIR])
    model = {"name": "tiny", "hf_path": str(TINY), "context_length": 512, "chat_template": LLAMA3.name}
    sft = run(
        "prepare_sft",
        input=rows([{"problem": PAIR["problem"], "generation": PAIR["chosen"]}]),
        folder="sft",
        model=model,
        prompt=PROMPT,
        seq_length=512,
    )
    ours, theirs = (PackedData.open(each.folder / "train").sample(0) for each in (ran, sft))
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
