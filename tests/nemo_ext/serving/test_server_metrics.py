"""What each kind of server says about its load, in its own format."""

import pytest

from nemo_ext.serving.launch.server_metrics import ServerMetrics, describe, prometheus
from nemo_ext.serving.servers import embedded, sglang, vllm


@pytest.mark.parametrize(
    ("module", "text", "expected"),
    [
        (
            vllm,
            '# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name="a b"} 7.0\n'
            'vllm:num_requests_waiting{x="}"} 2\nvllm:kv_cache_usage_perc{} 0.25\n'
            "vllm:generation_tokens_total 1.2e+03 1700000000\n",
            ServerMetrics(running=7, waiting=2, kv_cache_usage=0.25, generated_tokens=1200),
        ),
        (
            sglang,
            'sglang:num_running_reqs{pp_rank="0"} 8\nsglang:num_running_reqs{pp_rank="1"} 8\nsglang:num_queue_reqs 4\n'
            'sglang:token_usage{pp_rank="0"} 0.5\nsglang:token_usage{pp_rank="1"} 0.52\nsglang:generation_tokens_total 9\n',
            ServerMetrics(running=8, waiting=4, kv_cache_usage=0.52, generated_tokens=9),
        ),
        (
            embedded,
            "embedded_running 1\nembedded_waiting 0\nembedded_generated_tokens_total 55\n",
            ServerMetrics(running=1, waiting=0, generated_tokens=55),
        ),
        (vllm, "", ServerMetrics()),
        (vllm, "\xff{{{\nvllm:num_requests_running NaN\nvllm:num_requests_waiting\n{} 1", ServerMetrics()),
    ],
)
def test_prometheus_text(module: object, text: str, expected: ServerMetrics) -> None:
    assert module.read_metrics(text.encode("latin-1"), None) == expected  # type: ignore[attr-defined]


def test_values_of_one_name_are_kept_apart() -> None:
    assert prometheus(b'a{b="1"} 1\na{b="2"} 2\n# a 9\n') == {"a": [1.0, 2.0]}


def test_a_line() -> None:
    before = ServerMetrics(generated_tokens=1000)
    now = ServerMetrics(running=231, waiting=12, kv_cache_usage=0.871, generated_tokens=94_150)
    assert describe(now, before, 30.0) == "231 running, 12 waiting, KV cache 87%, 3,105 tokens/s"
    assert describe(now, None, 30.0) == "231 running, 12 waiting, KV cache 87%"
    assert describe(ServerMetrics(), None, 1.0) == ""
