"""The report's tables of prompt strategies: published values beside the figures that they are of, and odd runs shown as they are."""

import json
from pathlib import Path
from typing import Any

from nemo_ext.report.coverage_section import coverage, notes
from nemo_ext.report.render import exact, render, rounded
from tests.nemo_ext.report.example_report import COVERAGE, HOSTILE, strategy_row

PUBLISHED: dict[str, Any] = {
    "source": "a paper",
    "code_blocks": {"0": 16.4, "1": 81.7, "2+": 2.0},
    "solutions": [
        {"source": "math", "strategies": ["default"], "coverage": 80.1, "unique": 177_000},
        {"source": "math", "strategies": ["subject", "default"], "coverage": 85.1, "unique": None},
        {"source": "math", "strategies": ["masked by subject"], "coverage": 87.5, "unique": 227_000},
        {"source": "math", "strategies": [], "coverage": 93.04, "unique": 787_000},
    ],
}


def finished(root: Path, rows: list[dict[str, Any]], strategies: list[str]) -> dict[str, Path]:
    folder = root / "coverage"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"uses": "coverage"}))
    found = {"strategies": strategies, "stages": ["solve", "grade", "filter"], "unreadable": {}, "rows": rows}
    (folder / "coverage.json").write_text(json.dumps(found))
    return {"coverage": folder}


def test_published_values_stand_beside_what_they_are_of(tmp_path: Path) -> None:
    order = ["default", "subject", "masked"]
    rows = [strategy_row("math", name, 7500) for name in (*order, None)] + [strategy_row(None, None, 7500)]
    (table,) = coverage(finished(tmp_path, rows, order), PUBLISHED)
    default, subject, masked, together = table["groups"][0]["rows"]
    assert (default["published"]["coverage"], together["published"]["coverage"]) == (80.1, 93.04)
    assert subject["published"] is None and subject["published_so_far"]["coverage"] == 85.1
    assert masked["published_so_far"] is None and default["published_so_far"] is None
    assert table["groups"][1]["rows"][0]["published"] is None and not table["has_duplicates"]
    assert [each["strategies"] for each in table["published_elsewhere"]] == [["masked by subject"]]
    (bare,) = coverage({"coverage": tmp_path / "coverage"}, None)
    assert not bare["published"] and not bare["published_blocks"] and not bare["published_elsewhere"]


def test_the_page_has_the_counts_beside_the_percentages(tmp_path: Path) -> None:
    render({"coverage": COVERAGE}, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text().partition('id="coverage"')[2].replace("\u00a0", " ")
    for text in ("93.040 %", "6,978", "7,500 problems", "published 80.1 %", "published 177K", "published 1.04M", "published 85.1 %"):  # fmt: skip
        assert text in page
    for text in ("not asked about 3: missing_masked_solution", ">not asked<", "broken_code 37", "timeout 3", "none 16.4 %", "all sources", "Lines that were no rows: 2"):  # fmt: skip
        assert text in page
    assert "masked with hinted, 87.5 %, 227K unique" in page


def test_names_are_escaped(tmp_path: Path) -> None:
    row = strategy_row(HOSTILE, HOSTILE, 1, errors={HOSTILE: 1}, ended={HOSTILE: 1}, not_asked={HOSTILE: 1})
    groups = [{"source": HOSTILE, "rows": [row | {"dropped": {"solve": {HOSTILE: 1}, "grade": {}, "filter": {}}}]}]
    render({"coverage": [COVERAGE[0] | {"stage": HOSTILE, "groups": groups}] * 2}, tmp_path / "report.html")
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_a_source_without_a_correct_solution_is_said_at_the_top(tmp_path: Path) -> None:
    rows = [strategy_row("gsm8k", "default", 3, correct=0), strategy_row("gsm8k", None, 3, correct=0)]
    tables = coverage(finished(tmp_path, rows, ["default"]), None)
    assert notes(tables) == ["None of the 1,000 samples of gsm8k is correct."]
    assert notes(COVERAGE) == [] == notes([])


def test_formats() -> None:
    assert [exact(value).replace("\u00a0", " ") for value in (93.04, 99.946, 100.0, 0.0, None)] == [
        "93.04 %", "99.946 %", "100 %", "0 %", "\u2013",
    ]  # fmt: skip
    assert exact(91.0, 3) == "91.000\u00a0%"
    assert [rounded(value) for value in (177_000, 1_040_000, 900)] == ["177K", "1.04M", "0.9K"]
