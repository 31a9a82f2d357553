"""lm-evaluation-harness itself against the embedded server, where it is installed (it is no dependency of this repository)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from tests.nemo_ext.serving.conftest import Running

pytest.importorskip("lm_eval", reason="lm_eval is not installed here: pip install lm_eval[api]==0.4.13")

CHOICES = [["Ann has 5", [" coins", " tickets and more"]], ["Bo buys 17", [" more.", " metres of rope"]]]


def _task(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> None:
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "own",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
    }
    (folder / "own.yaml").write_text(json.dumps(task | fields))  # JSON is YAML


def _run(server: Running, checkpoint: Path, folder: Path) -> list[dict[str, Any]]:
    """The logged samples."""
    model = f"model={server.model},base_url={server.url}/v1/completions,tokenizer_backend=huggingface,tokenizer={checkpoint}"
    words = ["--tasks", "own", "--include_path", str(folder), "--output_path", str(folder / "out"), "--log_samples"]
    argv = [sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args", f"{model},max_length=512"]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    done = subprocess.run([*argv, *words], env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    [samples] = folder.glob("out/**/samples_own_*.jsonl")
    return [json.loads(line) for line in samples.read_text().splitlines()]


@pytest.mark.timeout(300)
def test_choices_have_the_likelihood_transformers_gives_them(
    shared_server: Running, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    fields = {"output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "{{choices}}",
              "doc_to_target": "{{gold}}", "target_delimiter": "", "metric_list": [{"metric": "acc"}]}  # fmt: skip
    _task(tmp_path, [{"question": text, "choices": choices, "gold": 0} for text, choices in CHOICES], **fields)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(tiny_checkpoint),
        LlamaForCausalLM.from_pretrained(tiny_checkpoint),
    )
    for sample, (text, choices) in zip(_run(shared_server, tiny_checkpoint, tmp_path), CHOICES, strict=True):
        for choice, reply in zip(choices, sample["filtered_resps"], strict=True):
            # no <bos>: the harness adds no special tokens unless it is asked to
            context, whole = (tokenizer.encode(t, add_special_tokens=False) for t in (text, text + choice))
            with torch.inference_mode():
                logprobs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
            expected = sum(float(logprobs[i - 1, whole[i]]) for i in range(len(context), len(whole)))
            assert float(reply[0]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.timeout(300)
def test_generate_until_gets_what_the_server_writes(
    shared_server: Running, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    kwargs = {"until": ["zz"], "do_sample": False, "max_gen_toks": 12}
    fields = {"output_type": "generate_until", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
              "generation_kwargs": kwargs, "metric_list": [{"metric": "exact_match"}]}  # fmt: skip
    _task(tmp_path, [{"question": "Ann has 5", "answer": "22"}], **fields)
    [sample] = _run(shared_server, tiny_checkpoint, tmp_path)
    ids = AutoTokenizer.from_pretrained(tiny_checkpoint).encode("Ann has 5", add_special_tokens=False)
    body = {"prompt": ids, "max_tokens": 12, "temperature": 0, "stop": ["zz"]}
    assert sample["resps"] == [[shared_server.post("/v1/completions", body)[1]["choices"][0]["text"]]]
