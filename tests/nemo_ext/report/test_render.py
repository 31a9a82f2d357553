import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nemo_ext.report.render import SECTIONS, count, duration, highlight_box, render, short

HOSTILE = '<script>alert(1)</script> "quoted" & $x^2$ {{ 7 * 7 }} \\boxed{<b>5</b>}'


def _model(name: str, correct: int, low: float, high: float, benchmark: str = "toy") -> dict:
    scores = {"correct": correct, "total": 200, "low": low, "high": high, "no_answer": 3, "truncated": 1}
    return {"model": name, "benchmark": benchmark} | scores


def _point(model: str, x: float | None, correct: int, series: str = "", published: float | None = None) -> dict:
    scores = {"correct": correct, "total": 200, "low": correct / 250, "high": min(1.0, correct / 170)}
    return {"model": model, "x": x, "series": series, "published": published} | scores


ABLATIONS = {
    "lines": {
        "x": "noisy rows, %", "log": False, "source": "",
        "points": [_point("clean", 0, 150, "mispaired"), _point("m80", 80, 30, "mispaired"), _point("w80", 80, 99, "wrong")],
    },
    "log": {"x": "rows", "log": True, "source": "", "points": [_point("1M", 1e6, 90), _point("all", 14e6, 120)]},
    "names": {"x": "format", "log": False, "source": "a paper", "points": [_point("a", None, 0), _point("b", None, 200, "", 44.5)]},
}  # fmt: skip


def _sections() -> dict:
    return {
        "ablation": ABLATIONS["lines"],
        "title": "openmathinstruct2 at scale tiny",
        "subtitle": "2 cores, 21 Nov 2026, 31 minutes",
        "warnings": ["24 grading pairs ran out of time and count as wrong."],
        "summary": [
            {"label": "Accuracy, averaged model", "value": "87.5 %", "note": "from 12.0 % before fine-tuning"},
            {"label": "Training rows", "value": "18,204", "note": "of 41,300 generated"},
            {"label": "New problems", "value": "1,968"},
            {"label": "Wall clock", "value": "31 min", "note": "on 2 CPU cores"},
        ],
        "accuracy": [
            _model("base", 24, 0.08, 0.172),
            _model("fine-tuned, last", 171, 0.8, 0.897),
            _model("fine-tuned, mean of 6", 175, 0.822, 0.914),
            _model("base", 11, 0.031, 0.096, "toy-hard"),
            _model("fine-tuned, last", 96, 0.412, 0.549, "toy-hard"),
            _model("fine-tuned, mean of 6", 104, 0.451, 0.588, "toy-hard"),
        ],
        "training": {
            "steps": list(range(1, 201)),
            "loss": [0.2 + 2.5 / (1 + step / 12) for step in range(200)],
            "lr": [1e-3 * min(1, step / 20) for step in range(200)],
            "validation": [{"step": step, "loss": 0.25 + 2.4 / (1 + step / 12)} for step in (50, 100, 150, 200)],
        },
        "funnel": [
            {"stage": "generate", "rows_in": 41300, "rows_out": 41298, "dropped": {"request_failed": 2}},
            {"stage": "grade", "rows_in": 41298, "rows_out": 41298, "dropped": {}},
            {
                "stage": "filter",
                "rows_in": 41298,
                "rows_out": 26110,
                "dropped": {"incorrect": 12904, "no_answer": 1601, "truncated": 512, "incorrect_arithmetic": 171},
            },
            {"stage": "downsample", "rows_in": 26110, "rows_out": 18204, "dropped": {"not_sampled": 7906}},
        ],
        "decontamination": {
            "toy": {"contaminated": 31, "checked": 1999},
            "gsm8k": {"contaminated": 0, "checked": 1999},
            "recall": 0.97,
            "precision": 1.0,
            "examples": [{"problem": "Ben has 3 pens.", "benchmark_problem": "Ava has 3 pens.", "score": 0.91}],
        },
        "samples": [
            {"stage": "filter", "rows": [{"problem": "What is 3 * 4?", "generation": "3 * 4 = 12.\n\\boxed{12}"}]},
            {"stage": "generate", "rows": [{"problem": HOSTILE, "generation": HOSTILE, "seed": 3}, {"id": 1}]},
        ],
        "resources": [
            {"stage": "generate", "seconds": 612.4, "prompt_tokens": 1_204_000, "generated_tokens": 2_310_400},
            {"stage": "train", "seconds": 703, "peak_memory_gb": 1.9},
        ],
        "differences": [{"key": "train.lr", "ours": 1e-3, "paper": 5e-6, "source": "OpenMathInstruct-2, section 4"}],
        "lineage": [
            {
                "stage": "train",
                "config_hash": "5f3c" * 16,
                "code_version": "9a7be21c40",
                "inputs": ["runs/tiny/prepare/packed"],
                "outputs": [{"path": "runs/tiny/train/hf", "rows": None, "sha256": "ab" * 32}],
                "models": {"student": "toy"},
                "seeds": [0],
            }
        ],
    }


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
    assert set(_sections()) == set(SECTIONS)
    render(_sections(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert "script" not in tags.seen
    assert not re.findall(r'(?:src|href)="(?!#)[^"]', page.split("<svg", 1)[0])
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
    ):
        assert text in page
    assert page.count("<svg") == 3


def test_text_is_escaped_wherever_it_stands(tmp_path: Path) -> None:
    sections = {
        "title": HOSTILE,
        "subtitle": HOSTILE,
        "warnings": [HOSTILE],
        "summary": [{"label": HOSTILE, "value": HOSTILE, "note": HOSTILE}],
        "accuracy": [_model(HOSTILE, 3, 0.0, 0.1, HOSTILE)],
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
    render({name: _sections()[name]}, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for other in set(SECTIONS) - {name, "title", "subtitle", "warnings", "summary"}:
        assert f'<section id="{other}"' not in page


def test_plots_are_valid_svg_in_page_colours(tmp_path: Path) -> None:
    render(_sections(), tmp_path / "report.html")
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
        render(_sections(), tmp_path / name)
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it(tmp_path: Path, scheme: str) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not on PATH")
    from matplotlib import image

    render(_sections(), tmp_path / "report.html")
    picture = tmp_path / "report.png"
    subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--hide-scrollbars",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
            "--window-size=1280,2600",
            f"--screenshot={picture}",
            (tmp_path / "report.html").as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=90,
    )
    pixels = image.imread(picture)[..., :3]
    assert pixels.std() > 0.05, "the page is blank"
    assert (pixels.mean() < 0.4) == (scheme == "dark")


@pytest.mark.parametrize("kind", ABLATIONS)
def test_ablations_of_every_kind(tmp_path: Path, kind: str) -> None:
    render({"ablation": ABLATIONS[kind]}, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for point in ABLATIONS[kind]["points"]:
        assert f"<td>{point['model']}" in page
    assert ("44.5 %" in page and "Hollow points are published" in page) is (kind == "names")
    assert "14,000,000" in page if kind == "log" else True
