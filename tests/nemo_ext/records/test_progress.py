from pathlib import Path

import pytest

from nemo_ext.records import progress
from nemo_ext.records.progress import Progress, read_heartbeat


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_rate_counts_only_its_own_work(tmp_path: Path, clock: list[float]) -> None:
    beating = Progress(tmp_path, "rows")
    beating.update(1000, 2000)
    clock[0] += 10
    beating.update(1100, 2000, failed=2)
    beat = read_heartbeat(tmp_path)
    assert beat is not None
    assert (beat["done"], beat["total"], beat["unit"], beat["failed"]) == (1100, 2000, "rows", 2)
    assert beat["rate"] == pytest.approx(10) and beat["eta_s"] == pytest.approx(90)


def test_it_writes_seldom_but_always_the_end(tmp_path: Path, clock: list[float]) -> None:
    beating = Progress(tmp_path, "rows", interval_s=5)
    for done in range(1, 11):
        clock[0] += 1
        beating.update(done, 20)
    beat = read_heartbeat(tmp_path)
    assert beat is not None and beat["done"] < 10
    beating.update(20, 20)
    beat = read_heartbeat(tmp_path)
    assert beat is not None and beat["done"] == 20
    assert [path.name for path in tmp_path.iterdir()] == ["heartbeat.json"]


def test_an_unknown_total_has_no_end(tmp_path: Path, clock: list[float]) -> None:
    Progress(tmp_path, "rows").update(5)
    beat = read_heartbeat(tmp_path)
    assert beat is not None and beat["total"] is None and beat["eta_s"] is None


def test_no_heartbeat(tmp_path: Path) -> None:
    assert read_heartbeat(tmp_path) is None
    (tmp_path / "heartbeat.json").write_text("{")
    assert read_heartbeat(tmp_path) is None
