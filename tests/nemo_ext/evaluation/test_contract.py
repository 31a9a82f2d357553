import json
from dataclasses import fields, replace

import pytest

from nemo_ext.evaluation.contract import UNKNOWN, Contract, compare, differences, in_words

BASE = Contract(
    benchmark_hash="b",
    prompt_hash="p",
    chat_template_hash="c",
    stop=("\n\n",),
    max_tokens=256,
    temperature=0.0,
    top_p=1.0,
    top_k=0,
    seeds=(0,),
    extractor="boxed",
    grader_version="rules-1",
    server="embedded 1",
    model_hash="m",
)


def test_only_the_model_may_differ() -> None:
    compare(BASE, BASE)
    compare(BASE, replace(BASE, model_hash="other"))
    assert BASE.digest() == replace(BASE, model_hash="other").digest()
    assert differences(BASE, replace(BASE, model_hash="other")) == {"model_hash": ("m", "other")}


@pytest.mark.parametrize("name", [item.name for item in fields(Contract) if item.name != "model_hash"])
def test_any_other_difference_is_refused_by_name(name: str) -> None:
    value = getattr(BASE, name)
    changed = replace(BASE, **{name: (*value, 1) if isinstance(value, tuple) else value * 2 + type(value)(1)})
    assert set(compare(BASE, changed, allow_mismatch=True)) == {name}
    assert BASE.digest() != changed.digest()
    with pytest.raises(ValueError, match=name):
        compare(BASE, changed)


def test_json_round_trip() -> None:
    assert Contract.from_dict(json.loads(json.dumps(BASE.to_dict()))) == BASE
    with pytest.raises(TypeError):
        Contract.from_dict(BASE.to_dict() | {"temprature": 1.0})


def test_scores_of_earlier_versions_are_read() -> None:
    earlier = BASE.to_dict()
    for added in ("grader", "num_samples", "few_shot", "search"):
        del earlier[added]
    assert Contract.from_dict(earlier) == BASE


def test_what_is_not_known_compares_with_nothing() -> None:
    """Not even with itself: two files of rows may come from different prompts."""
    unknown = Contract(**UNKNOWN, extractor="boxed", grader_version="rules-1", grader="symbolic")
    assert Contract.from_dict(json.loads(json.dumps(unknown.to_dict()))) == unknown
    with pytest.raises(ValueError, match="prompt_hash: not known against not known"):
        compare(unknown, unknown)
    with pytest.raises(ValueError, match="temperature: 0.0 against not known"):
        compare(BASE, unknown)
    assert "stop: ['\\n\\n'] against not known" in in_words(compare(BASE, unknown, allow_mismatch=True))
