import json
import threading
from pathlib import Path

import pytest

from nemo_ext.serving.address import Endpoint, wait_for


def test_waits_for_every_file_and_keeps_the_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"server-{i}.json" for i in range(2)]
    paths[1].write_text(json.dumps({"url": "http://b:2", "model": "m", "pid": 1}))

    def publish() -> None:
        (tmp_path / "temporary").write_text(json.dumps({"url": "http://a:1", "model": "m", "pid": 1}))
        (tmp_path / "temporary").rename(paths[0])

    threading.Timer(0.2, publish).start()
    assert wait_for(paths, 30) == [Endpoint("http://a:1", "m"), Endpoint("http://b:2", "m")]


def test_a_service_that_gives_up_ends_the_waiting(tmp_path: Path) -> None:
    (tmp_path / "server-1.json").write_text('{"error": "the wrong model"}')
    with pytest.raises(ValueError, match="server-1 did not start: the wrong model"):
        wait_for([tmp_path / "server-0.json", tmp_path / "server-1.json"], 60)


def test_says_what_is_missing(tmp_path: Path) -> None:
    there, missing = tmp_path / "there.json", tmp_path / "missing.json"
    there.write_text("{}")
    with pytest.raises(TimeoutError, match=r"missing\.json missing; look at that service's log") as raised:
        wait_for([there, missing], 0.1)
    assert "there.json" not in str(raised.value)
