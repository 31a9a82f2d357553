import base64
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from nemo_ext.explorer.page import KATEX, write_page
from nemo_ext.explorer.parts import ENTRY_BYTES, PART_BYTES, PartSeries, cut, entry, part_folder
from nemo_ext.records.files import sha256_file


def unpacked(path: Path) -> tuple[str, Any]:
    """(name, content) of a part."""
    name, packed = path.read_text().removeprefix('explorer.receive("').removesuffix('");\n').split('","')
    return name, json.loads(gzip.decompress(base64.b64decode(packed)))


def test_entries_come_back_in_order_and_say_where_they_are(tmp_path: Path) -> None:
    values = [{"n": n, "text": "ab" * 40_000} for n in range(30)]
    with part_folder(tmp_path) as parts:
        series = PartSeries(parts, "rows/0")
        places = [series.add(entry(value, 10**6)) for value in values]
        series.flush()
    read = [unpacked(tmp_path / "rows" / "0" / f"{number:05d}.js") for number in range(series.count)]
    assert [name for name, _ in read] == [
        f"rows/0/{number:05d}" for number in range(series.count)
    ] and series.count > 2
    assert [value for _, content in read for value in content] == values
    assert [value["n"] for value in read[places[17]][1]] == [
        n for n, place in enumerate(places) if place == places[17]
    ]


def test_no_file_is_larger_than_promised_even_where_nothing_can_be_compressed(tmp_path: Path) -> None:
    noise = random.Random(0)
    alphabet = "".join(chr(code) for code in (*range(35, 92), *range(93, 127)))  # no quote, no backslash: a byte each
    with part_folder(tmp_path) as parts:
        series = PartSeries(parts, "x")
        text = "".join(noise.choices(alphabet, k=590_000))
        for place in range(6):
            data = entry({"text": text[place:] + text[:place]}, 10**9)
            assert len(data) <= ENTRY_BYTES
            series.add(data)
        series.flush()
        written = parts.finish()
    sizes = [path.stat().st_size for path in tmp_path.rglob("*.js")]
    assert max(sizes) == written.largest <= PART_BYTES and sum(sizes) == written.bytes and len(sizes) == written.files


@pytest.mark.parametrize("value", ["\x01" * 400_000, ["x"] * 500_000, {"a": {"b": ["\u2028" * 300_000] * 4}}])
def test_an_entry_has_a_limit_whatever_is_in_it(value: Any) -> None:
    data = entry(value, 200_000)
    assert len(data) <= ENTRY_BYTES and "more" in data.decode()


def test_cut_says_what_is_missing_and_leaves_short_values() -> None:
    assert cut("abcdef", 4) == "abcd\n\u2026 2 more characters"
    value = {"a": [1, None, True], "b": "abcd", "c": 2.5}
    assert cut(value, 4) == value


def test_katex_is_what_its_provenance_says() -> None:
    known = json.loads((KATEX / "provenance.json").read_text())["files"]
    there = [path for path in KATEX.rglob("*") if path.is_file() and path.name != "provenance.json"]
    assert {str(path.relative_to(KATEX)): sha256_file(path) for path in there} == known


def test_fonts_are_in_the_style(tmp_path: Path) -> None:
    write_page(tmp_path / "page")
    css = (tmp_path / "page" / "katex.css").read_text()
    assert css.count("data:font/woff2;base64,") == len(list((KATEX / "fonts").glob("*.woff2"))) == 20
    assert "url(fonts" not in css and "http" not in css
