"""metrics.jsonl over restarts."""

from pathlib import Path

from nemo_ext.megatron.record.metrics import MetricsLog, read_metrics


def test_a_restart_drops_later_steps_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    for step in range(1, 6):
        log.write(step=step, loss=1.0 / step)
    log.write(step=4, validation_loss=0.5)
    log.close()
    with path.open("ab") as handle:
        handle.write(b'{"step": 6, "lo')

    log = MetricsLog(path, 4)
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4, 4]
    log.write(step=5, loss=0.2)
    log.close()
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4, 4, 5]


def test_a_fresh_log_starts_empty(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "new" / "metrics.jsonl", 0)
    log.close()
    assert list(read_metrics(tmp_path / "new" / "metrics.jsonl")) == []
