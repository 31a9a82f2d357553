import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nemo_ext.report.render import SECTIONS, count, duration, highlight_box, render, short
from nemo_ext.report.run_sections import objective_figures
from tests.nemo_ext.explorer.chromium import PATH, chromium
from tests.nemo_ext.report.example_report import ABLATIONS, HOSTILE, SCORES, comparison, model, whole_report


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in {"meta", "br", "link", "path", "use", "rect"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"path", "use", "rect"}:
            assert self.open.pop() == tag


def test_whole_report_is_well_formed_and_self_contained(tmp_path: Path) -> None:
    assert set(whole_report()) == set(SECTIONS)
    render(whole_report(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert "script" not in tags.seen
    links = re.findall(r'(?:src|href)="(?!#)([^"]*)"', page)
    assert links == ["explore/index.html"], "what lies beside it, and nothing is loaded"
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in page
    for text in (
        "87.5 %",
        "12,904",
        "fine-tuned, mean of 6",
        "10 min 12 s",
        "2,310,400",
        "97.0",
        "5e-06",
        "24 grading",
        "reward margin",
    ):
        assert text in page
    assert page.count("<svg") == 5


def test_text_is_escaped_wherever_it_stands(tmp_path: Path) -> None:
    sections = {
        "title": HOSTILE,
        "subtitle": HOSTILE,
        "warnings": [HOSTILE],
        "summary": [{"label": HOSTILE, "value": HOSTILE, "note": HOSTILE}],
        "accuracy": [model(HOSTILE, 3, 0.0, 0.1, HOSTILE)],
        "leaderboard": {
            "benchmarks": [HOSTILE],
            "rows": [
                SCORES["leaderboard"]["rows"][0]
                | {"model": HOSTILE, "scores": SCORES["leaderboard"]["rows"][0]["scores"][:1]}
            ],
        },
        "comparisons": comparison(HOSTILE) | {"refused": [{"model": HOSTILE, "terms": HOSTILE}]},
        "breakdown": [{"benchmark": HOSTILE, "kind": "subject", "labels": [HOSTILE], "models": {HOSTILE: [None]}}],
        "published": [
            {
                "model": HOSTILE,
                "benchmark": HOSTILE,
                "score": 1.0,
                "problems": 3,
                "metric": HOSTILE,
                "grader": HOSTILE,
                "source": HOSTILE,
                "note": HOSTILE,
                "ours": None,
                "apart": [HOSTILE],
            }
        ],
        "explorers": [{"stage": HOSTILE, "page": HOSTILE}],
        "funnel": [{"stage": HOSTILE, "rows_in": 1, "rows_out": 0, "dropped": {HOSTILE: 1}}],
        "decontamination": {HOSTILE: {"contaminated": 0, "checked": 0}, "examples": [HOSTILE, {HOSTILE: HOSTILE}]},
        "samples": [{"stage": HOSTILE, "rows": [{HOSTILE: HOSTILE}]}],
        "resources": [{"stage": HOSTILE}],
        "differences": [{"key": HOSTILE, "ours": HOSTILE, "paper": HOSTILE, "source": HOSTILE}],
        "lineage": [{"stage": HOSTILE, "config_hash": HOSTILE, "inputs": [HOSTILE]}],
    }
    render(sections, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "<b>" not in page
    assert "{{ 7 * 7 }}" in page
    assert "<mark>\\boxed{&lt;b&gt;5&lt;/b&gt;}</mark>" in page


@pytest.mark.parametrize("name", SECTIONS)
def test_each_section_stands_alone(tmp_path: Path, name: str) -> None:
    render({name: whole_report()[name]}, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for other in set(SECTIONS) - {name, "title", "subtitle", "warnings", "summary"}:
        assert f'<section id="{other}"' not in page


def test_plots_are_valid_svg_in_page_colours(tmp_path: Path) -> None:
    render(whole_report(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    ids: list[str] = []
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        root = ET.fromstring(svg)
        ids += [element.attrib["id"] for element in root.iter() if element.attrib.get("id", "").startswith(("p", "m"))]
        assert "var(--series-1)" in svg
        assert not re.search(r"#0[1-3]0", svg)
    clips = [name for name in ids if re.fullmatch(r"[pm][0-9a-f]{10}", name)]
    assert len(clips) == len(set(clips))


def test_rendering_is_deterministic(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        render(whole_report(), tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_wrong_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown section accuraccy"):
        render({"accuraccy": []}, tmp_path / "report.html")
    with pytest.raises(ValueError, match="nothing to show"):
        render({"accuracy": []}, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_formats() -> None:
    assert [count(value) for value in (1234567, 0.5, None)] == ["1,234,567", "0.50", "\u2013"]
    assert [duration(value) for value in (0.25, 59.96, 61, 3725, None)] == [
        "0.2 s",
        "60.0 s",
        "1 min 01 s",
        "1 h 02 min",
        "\u2013",
    ]
    assert short("a\n" * 100, 9) == "a a a a\u2026"
    assert highlight_box(["<"]) == "[&#34;&lt;&#34;]"
    assert len(highlight_box("x" * 50_000)) < 21_000


@pytest.mark.skipif(PATH is None, reason="no Chromium on this machine")
def test_a_browser_shows_it(tmp_path: Path) -> None:
    from matplotlib import image

    render(whole_report(), tmp_path / "report.html")
    with chromium(tmp_path / "profile") as page:
        page.size(1280, 2600)
        page.send("Page.navigate", url=(tmp_path / "report.html").as_uri())
        page.until("document.readyState === 'complete' && document.getElementById('lineage')")
        for scheme in ("light", "dark"):
            page.scheme(scheme)
            page.screenshot(tmp_path / f"{scheme}.png")
            pixels = image.imread(tmp_path / f"{scheme}.png")[..., :3]
            assert pixels.std() > 0.05, "the page is blank"
            assert (pixels.mean() < 0.4) == (scheme == "dark")
        page.size(390, 844)
        assert page.run("document.documentElement.scrollWidth") <= 390, "nothing sticks out of a phone"
        assert page.errors() == []


@pytest.mark.parametrize("kind", ABLATIONS)
def test_ablations_of_every_kind(tmp_path: Path, kind: str) -> None:
    render({"ablation": ABLATIONS[kind]}, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for point in ABLATIONS[kind]["points"]:
        assert f"<td>{point['model']}" in page
    assert (("44.5 %" in page or "74.3 %" in page) and "Hollow points are published" in page) is (
        kind in ("names", "benchmarks")
    )
    assert "14,000,000" in page if kind == "log" else True
    assert ("One series a benchmark." in page) is ("Rows trained on" in page) is (kind == "benchmarks")
    assert page.count('<td class="n">1,200</td>') == (4 if kind == "benchmarks" else 0)


def test_graders_and_the_spread_of_samples_are_shown_where_there_are_several(tmp_path: Path) -> None:
    render(whole_report(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert (
        page.index(">symbolic</th>")
        < page.index(">judge</th>")
        < page.index(">both</th>")
        < page.index(">either</th>")
    )
    assert "87.5\u00a0%" in page and ">1.3</td>" in page
    rows = [row | {"spread": None, "verdicts": {}} for row in whole_report()["accuracy"]]
    render({"accuracy": rows}, tmp_path / "one.html")
    assert (
        "By grader" not in (tmp_path / "one.html").read_text()
        and ">Spread<" not in (tmp_path / "one.html").read_text()
    )


def test_an_objectives_figures_are_curves_of_their_own() -> None:
    lines = [
        {"step": 0, "validation_loss": 0.7, "figures": {"accuracy": 0.5}},
        {"step": 1, "loss": 0.7, "figures": {"accuracy": 0.4, "margin": -1.0}},
        {"step": 2, "loss": 0.6},
    ]
    assert objective_figures(lines) == {
        "accuracy": {"training": [{"step": 1, "value": 0.4}], "validation": [{"step": 0, "value": 0.5}]},
        "margin": {"training": [{"step": 1, "value": -1.0}], "validation": []},
    }


def test_a_stage_that_makes_rows_keeps_no_more_than_all(tmp_path: Path) -> None:
    made = {
        "stage": "parse_replies",
        "rows_in": 10,
        "rows_made": 30,
        "rows_out": 35,
        "dropped": {"no_numbered_list": 5},
    }
    render(whole_report() | {"funnel": [made]}, tmp_path / "report.html")
    section = (tmp_path / "report.html").read_text().partition('id="funnel"')[2].partition("</section>")[0]
    assert "10 + 30 made of them" in section and "87.5" in section and "350" not in section.replace("350.00%", "")
