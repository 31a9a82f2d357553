"""A contract of no particular evaluation."""

from dataclasses import replace
from typing import Any

from nemo_ext.evaluation.contract import Contract

CONTRACT = Contract(
    benchmark_hash="b", prompt_hash="p", chat_template_hash="c", stop=(), max_tokens=9, temperature=0.0, top_p=1.0, top_k=0,
    seeds=(0,), extractor="boxed", grader_version="g", server="fake 1", model_hash="m",
)  # fmt: skip


def contract(**terms: Any) -> Contract:
    return replace(CONTRACT, **terms)
