"""Render a run as one HTML file: no scripts, no network, safe to open and to send.

    render({"title": "tiny run", "accuracy": [...], "warnings": []}, Path("report.html"))

Sections are plain dicts and lists; each is shown only when given. All text is escaped, since most of it was written by
a model, and a content security policy keeps the page from loading or running anything.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from nemo_ext.evaluation.stats import wilson
from nemo_ext.grading.extract import last_box
from nemo_ext.records.files import write_text_atomic
from nemo_ext.report import plots

SECTIONS = (
    "title",
    "subtitle",
    "warnings",
    "summary",
    "ablation",
    "leaderboard",
    "accuracy",
    "comparisons",
    "breakdown",
    "checkpoints",
    "published",
    "explorers",
    "training",
    "funnel",
    "coverage",
    "decontamination",
    "samples",
    "resources",
    "differences",
    "lineage",
)
# Their SVG goes in as it is: matplotlib escapes every label.
_PLOTS: dict[str, Callable[[Any], str]] = {
    "ablation": plots.ablation,
    "accuracy": plots.accuracy,
    "breakdown": plots.breakdown,
    "checkpoints": plots.checkpoints,
    "training": plots.training,
}
_MAX_TEXT = 20_000  # characters of one value; a runaway generation must not make the page unusable


def render(sections: dict[str, Any], out: Path) -> None:
    """Write the report to `out`, at once or not at all.

    Raises:
        ValueError: an unknown section, or nothing to show.
    """
    unknown = sorted(set(sections) - set(SECTIONS))
    if unknown:
        raise ValueError(f"report: unknown section {', '.join(unknown)}; it may have {', '.join(SECTIONS)}")
    given = {name: sections.get(name) or None for name in SECTIONS}
    if not any(given.values()):
        raise ValueError("report: every section is empty, so there is nothing to show")
    figures = {name: Markup(draw(given[name])) for name, draw in _PLOTS.items() if given[name]}  # noqa: S704
    write_text_atomic(out, _environment().get_template("report.html.jinja").render(given=given, figures=figures))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=count,
        share=share,
        duration=duration,
        text=readable,
        boxed=highlight_box,
        short=short,
        interval=interval,
        percent=percent,
        exact=exact,
        rounded=rounded,
        width=width,
    )
    environment.globals.update(
        total=total, several_of=several_of, graders_of=graders_of, with_a_colour=plots.with_a_colour
    )
    return environment


def several_of(rows: list[dict[str, Any]]) -> list[str]:
    """The names of the metrics over several samples that any row has."""
    return list(dict.fromkeys(name for row in rows for name in row.get("metrics", {})))


def graders_of(rows: list[dict[str, Any]]) -> list[str]:
    """The graders that any row has a share of, `both` and `either` last."""
    names = list(dict.fromkeys(name for row in rows for name in row.get("verdicts", {})))
    return sorted(names, key=("both", "either").__contains__)


def total(rows: list[dict[str, Any]], key: str) -> float | None:
    """The sum of a column; None when no row has it."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return sum(values) if values else None


def count(value: float | None) -> str:
    """1234567 -> "1,234,567"; a missing figure is a dash."""
    if value is None:
        return "\u2013"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def share(part: float, whole: float) -> str:
    """ "12.5 %"; of nothing, a dash."""
    return f"{100 * part / whole:.1f}\u00a0%" if whole else "\u2013"


def percent(value: float) -> str:
    """0.125 -> "12.5 %"."""
    return f"{100 * value:.1f}\u00a0%"


def exact(value: float | None, decimals: int | None = None) -> str:
    """A percentage to so many decimals, or as many as it has, three at most: 93.04 -> "93.04 %"; a missing one is a dash."""
    if value is None:
        return "\u2013"
    text = f"{value:.3f}".rstrip("0").rstrip(".") if decimals is None else f"{value:.{decimals}f}"
    return f"{text}\u00a0%"


def rounded(value: int) -> str:
    """A count that was published with three digits: 177000 -> "177K", 1040000 -> "1.04M"."""
    return f"{value / 1_000_000:.3g}M" if value >= 1_000_000 else f"{value / 1000:.3g}K"


def width(part: int, whole: int) -> str:
    """How wide a bar is: "12.50%"."""
    return f"{100 * part / whole:.2f}%"


def interval(row: dict[str, Any]) -> str:
    """The row's [low, high] in percent; its Wilson interval when it has none."""
    low, high = (row["low"], row["high"]) if "low" in row else wilson(row["correct"], row["total"])
    return f"{100 * low:.1f} \u2013 {100 * high:.1f}"


def duration(seconds: float | None) -> str:
    """3725 -> "1 h 02 min"."""
    if seconds is None:
        return "\u2013"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def readable(value: Any) -> str:
    """Any value as text, strings as they are, cut when very long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if len(text) <= _MAX_TEXT:
        return text
    return f"{text[:_MAX_TEXT]}\n... ({len(text) - _MAX_TEXT:,} more characters)"


def short(value: Any, length: int = 110) -> str:
    """The beginning of a value, on one line."""
    text = " ".join(readable(value).split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "\u2026"


def highlight_box(value: Any) -> Markup:
    """Escaped text with the answer that would be graded, the last whole box, marked."""
    text = readable(value)
    box = last_box(text)
    if box is None:
        return escape(text)
    before, answer, after = (escape(part) for part in (text[: box.start], text[box.start : box.end], text[box.end :]))
    return before + Markup("<mark>") + answer + Markup("</mark>") + after
