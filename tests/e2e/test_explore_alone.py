"""+recipe=explore: a run's folder, one command, a page."""

from collections.abc import Callable
from pathlib import Path

from tests.nemo_ext.explorer.explored_runs import write_run


def test_a_run_becomes_a_page(finish: Callable[..., str], tmp_path: Path) -> None:
    run = write_run(tmp_path / "mine", problems=10, samples=2)
    finish("+recipe=explore", "+scale=tiny", f"input={run}", "run_name=look")
    page = tmp_path / "look" / "explore" / "index.html"
    assert str(run) in page.read_text() and (page.parent / "parts" / "catalog.js").is_file()
