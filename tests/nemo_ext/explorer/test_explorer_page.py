"""The page in a real browser: opened from disk, clicked, typed in, looked at."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_ext.explorer.explorer import write
from nemo_ext.explorer.parts import PART_BYTES
from tests.nemo_ext.explorer.chromium import PATH, Page, chromium
from tests.nemo_ext.explorer.explored_runs import OPTIONS, write_lines, write_run

pytestmark = pytest.mark.skipif(PATH is None, reason="no Chromium on this machine")
BOXED = "\\boxed{"  # which looks ahead as far as a formula may be long
HASH = "new URLSearchParams(location.hash.slice(1))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explored")
    write(folder / "explore", [str(write_run(folder / "a run"))], OPTIONS)
    return folder / "explore"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page, folder: Path) -> Iterator[Page]:
    """The page with its list; afterwards, that nothing went wrong and nothing was asked of the network."""
    browser.size(1440, 900)
    browser.scheme("light")
    browser.open(folder / "index.html")
    yield browser
    assert browser.errors() == []
    wanted = browser.requested()
    assert len(wanted) > 5 and all(each.startswith((folder.as_uri(), "about:", "data:")) for each in wanted), wanted


def shown(page: Page) -> list[str]:
    return page.texts(".row .name b")


def opened(page: Page) -> str:
    return page.run(f"{HASH}.get('open')")


def test_the_list_shows_every_problem_and_model(page: Page, tmp_path: Path) -> None:
    assert page.text(".total") == "60 problems"
    assert shown(page)[:3] == ["0", "1", "2"] and len(shown(page)) < 40, "only what is on the screen"
    row = page.text(".row:nth-child(2)")
    assert "L2 · toy · Algebra" in row and "20 %" in row and "100 %" in row
    assert page.run("document.querySelectorAll('.row .katex').length") > 10, "formulas are set in the list"
    assert "Not comparable: these evaluations differ in max tokens" in page.text(".caution")
    page.screenshot(tmp_path / "list.png")
    assert (tmp_path / "list.png").stat().st_size > 20_000


def test_filters_search_and_sorting(page: Page) -> None:
    def choose(name: str, value: str) -> None:
        page.run(
            f"(() => {{ const s = document.querySelector('select[name={name}]'); s.value = '{value}'; s.dispatchEvent(new Event('change')); }})()"
        )

    page.click("[data-flag=disagree]")
    page.until("document.querySelector('.total').innerText === '1 of 60 problems'")
    assert shown(page) == ["2"] and page.run("document.querySelector('[data-flag=disagree]').ariaPressed") == "true"
    page.click("[data-flag=disagree]")
    page.until("document.querySelector('.total').innerText === '60 problems'")
    page.click("[data-flag=cut]")
    page.until("document.querySelector('.total').innerText === '1 of 60 problems'")
    assert shown(page) == ["3"]
    page.click("[data-flag=cut]")
    page.click("[data-flag=lost]")
    page.until("document.querySelector('.total').innerText.startsWith('60 p')")
    choose("model", "tuned")
    page.until("document.querySelector('.total').innerText.startsWith('0 of')")
    page.click("[data-flag=lost]")
    choose("benchmark", "other")
    choose("level", "3")
    choose("sort", "accuracy")
    page.until("document.querySelector('.total').innerText === '4 of 60 problems'")
    assert shown(page) == ["12", "27", "42", "57"]
    page.key("/")
    page.type("WORD4 geometry")
    page.until("document.querySelector('.total').innerText === '1 of 60 problems'")
    assert shown(page) == ["42"]
    page.key("Escape")
    page.until("document.querySelector('.total').innerText === '4 of 60 problems'")
    page.open(Path(page.run("decodeURIComponent(location.pathname)")), page.run("location.hash"))
    assert page.text(".total") == "4 of 60 problems", "the address is the state"


def test_words_are_found_in_samples_when_asked_for(page: Page) -> None:
    assert page.run("document.querySelector('[data-deep]').hidden"), "nothing is looked for yet"
    page.key("/")
    page.type("in prose")
    page.until("document.querySelector('.total').innerText === '0 of 60 problems'")
    page.click("[data-deep]")
    page.until("document.querySelector('.total').innerText === '1 of 60 problems'")
    assert shown(page) == ["2"] and page.run(f"{HASH}.get('deep')") == "1"
    page.click(".row:nth-child(1)")
    page.click("[data-only=found]")
    page.until("[...document.querySelectorAll('.sample')].filter((each) => !each.hidden).length === 1")
    page.key("/")
    page.key("Escape")
    page.until("document.querySelector('.total').innerText === '60 problems'")


def test_a_problem_opens_and_the_back_button_closes_it(page: Page) -> None:
    page.click("[data-flag=differ]")
    page.click(".row:nth-child(2)")
    page.until("document.querySelectorAll('.sample').length === 5")
    assert opened(page) == "toy/1" and "2 of 60" in page.text(".detail-head")
    assert "Expected 1" in page.text(".expects") and page.text(".statement").startswith("What is")
    verdicts = page.texts(".sample:nth-child(2) .verdict")
    assert [each.strip() for each in verdicts] == ["✗ wrong", "✗ symbolic: wrong", "✗ judge: wrong"]
    assert [each.split("\n")[0] for each in page.texts(".vote")] == ["✗", "✓"]
    page.key("j")
    page.until(f"{HASH}.get('open') === 'toy/2'")
    page.key("ArrowDown")
    page.until(f"{HASH}.get('open') === 'other/3'")
    page.key("k")
    page.until(f"{HASH}.get('open') === 'toy/2'")
    page.until("document.querySelector('.sample .warn')")
    assert "disagree" in page.text(".sample .warn") and "21 tokens" in page.text(".sample:nth-child(2)")
    page.run("history.back()")
    page.until("document.querySelector('.detail').hidden")
    assert opened(page) is None and page.run(f"{HASH}.get('flags')") == "differ", "back to the list as it was"
    page.key("Enter")
    page.until("!document.querySelector('.detail').hidden")
    page.key("Escape")
    page.until("document.querySelector('.detail').hidden")


def test_samples_are_chosen_by_vote_and_by_model(page: Page, folder: Path) -> None:
    page.open(folder / "index.html", "#view=problems&open=other/3")
    page.until("document.querySelectorAll('.sample').length === 5")
    visible = "[...document.querySelectorAll('.sample')].filter((each) => !each.hidden).length"
    page.click(".vote:nth-of-type(1)")
    page.until(f"{visible} === 3")
    page.click("[data-only=none]")
    page.until(f"{visible} === 1")
    assert "no answer" in page.text(".sample:not([hidden])") and "truncated" in page.text(".sample:not([hidden])")
    page.click("[data-only=none]")
    page.until(f"{visible} === 5")
    page.click("[data-only=cut]")
    page.until(f"{visible} === 1")
    page.key("m")
    page.until("document.querySelector('.card[aria-pressed=true]').innerText.includes('base')")
    page.key("m")
    page.until("document.querySelector('.card[aria-pressed=true]').innerText.includes('tuned')")
    page.until(f"{visible} === 5 && document.querySelector('.sample .verdict.right')")
    page.click(".card.all")
    page.until(f"{visible} === 10")
    page.click("button.source")
    assert page.text(".sample pre").startswith("I say \\boxed{")


def test_what_a_model_wrote_is_never_run(page: Page, folder: Path) -> None:
    for fragment in ("#view=problems&open=toy/1", "#view=rows&stage=filter&reason=no_box&q=onerror"):
        page.open(folder / "index.html", fragment)
        page.until(
            "document.body.innerText.includes('onerror')"
            if "rows" in fragment
            else "document.querySelector('.generation')?.innerText.includes('onerror')"
        )
        if "rows" in fragment:
            page.click(".row")
            page.until("document.querySelector('.detail:not([hidden]) .prose')")
        assert page.run("window.hit") is None
        assert (
            page.run(
                "document.querySelectorAll('main :is(img, script, iframe, object, form[action], a[href^=javascript])').length"
            )
            == 0
        )
        text = page.run("document.querySelector('.detail').textContent")
        assert '</script><img src="x"' in text and "{{ 7 * 7 }}" in text and "&lt;i&gt;" in text
        assert page.run("[...document.querySelectorAll('.detail .broken')].map((e) => e.textContent)") == [
            "$\\href{javascript:window.hit=6}{x}$", "$\\htmlData{a=b}{x}$",
        ]  # fmt: skip


def test_math_and_code_are_set(page: Page, folder: Path) -> None:
    page.open(folder / "index.html", "#view=problems&open=toy/2&who=base")
    page.until("document.querySelector('.generation .katex')")
    body = ".sample:nth-child(1) .generation"
    assert page.run(f"document.querySelectorAll('{body} .katex').length") == 3
    assert page.run(f"document.querySelectorAll('{body} .katex-display').length") == 1
    assert page.run(f"document.querySelector('{body} pre').textContent") == "print('<b>1</b>')"
    text = page.run(f"document.querySelector('{body}').textContent")
    assert "and $5 or $6 in prose, broken $\\frac{1$ too." in text
    assert page.run("document.fonts.load('16px KaTeX_Main').then((found) => found.length)") == 1, "the fonts are there"


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("It costs $5 and $6.", ["plain"]), ("from $x$ to $y+1$!", ["plain", "math", "plain", "math", "plain"]), ("$18/2=$9", ["plain"]),
        ("$$a$$\\(b\\)\\[c\\]", ["math"] * 3), ("\\boxed{\\frac{1}{2}} end", ["math", "plain"]), ("\\boxed{1 never closed", ["plain"]),
        ("```\ncut off $x$", ["code"]), ("\\begin{align*}a&=b\\end{align*}", ["math"]), ("\\begin{align}a", ["plain"]), ("", []),
        ("<llm-code>\nx\n</llm-code><llm-code-output>\n1\n</llm-code-output>", ["code", "code"]), ("\\$5", ["plain"] * 2), ("a $ b $$ c", ["plain"]),
    ],
)  # fmt: skip
def test_text_is_cut_where_math_begins(browser: Page, folder: Path, text: str, kinds: list[str]) -> None:
    if browser.run("typeof explorer") == "undefined":
        browser.open(folder / "index.html")
    assert browser.run(f"explorer.text.segments({json.dumps(text)}).map((each) => each.kind)") == kinds
    joined = browser.run(
        f"explorer.text.segments({json.dumps(text)}).map((each) => each.source ?? each.body).join('')"
    )
    assert joined == text


def test_a_megabyte_of_what_begins_and_never_ends_is_cut_at_all(page: Page) -> None:
    """Were it not linear, the browser would not answer."""
    for piece in ("$", "\\[", "\\boxed{", "`", "$x", "**a", "\\begin{align}"):
        text = f"{json.dumps(piece)}.repeat({1_000_000 // len(piece) if piece != BOXED else 5000})"
        assert page.run(f"explorer.text.segments({text}).map((each) => each.source ?? each.body).join('') === {text}")


def test_rows_of_a_stage_by_reason(page: Page) -> None:
    page.click("#tabs a:nth-child(2)")
    page.until("document.querySelector('.view.stages .row')")
    assert page.texts(".step .n") == ["400 → 300"]
    assert page.texts(".reasons .chip") == ["kept\n300\n75.0 %", "too long\n75\n18.8 %", "no box\n25\n6.3 %"]
    page.until("document.querySelector('.view .total').innerText === '80 of 400 shown, a random sample'")
    page.click("[data-reason=too_long]")
    page.until("document.querySelector('.view .total').innerText === '20 of 75 shown, a random sample'")
    assert set(page.texts(".row .tag")) == {"too long"}
    page.click(".row:nth-child(3)")
    page.until("document.querySelector('.detail .keys')")
    assert page.text(".detail-head").startswith("dropped: too long") and page.text(".keys dd").startswith("d")
    before = page.text(".keys dd")
    page.key("j")
    page.until(f"document.querySelector('.keys dd').innerText !== '{before}'")
    page.run("history.back()")
    page.until("document.querySelector('.detail').hidden")
    page.click(".segment")
    page.until("document.querySelector('.view .total').innerText.startsWith('40 of 300')")


def test_a_file_of_rows_alone_is_a_page(browser: Page, tmp_path: Path) -> None:
    write_lines(tmp_path / "mine.jsonl", [{"text": f"Row {n} of mine, which is a long one"} for n in range(5)])
    write(tmp_path / "explore", [str(tmp_path / "mine.jsonl")], OPTIONS)
    browser.open(tmp_path / "explore" / "index.html")
    browser.until("document.querySelectorAll('.row').length === 5")
    browser.click(".row:nth-child(2)")
    browser.until("document.querySelector('.detail:not([hidden]) .prose')?.innerText.startsWith('Row 1 of')")
    assert browser.texts("#tabs a") == ["Stages and rows\n1"] and browser.errors() == []


def test_dark_narrow_and_printed(page: Page, folder: Path, tmp_path: Path) -> None:
    light = page.run("getComputedStyle(document.body).backgroundColor")
    page.scheme("dark")
    page.size(390, 844)
    dark = page.run("getComputedStyle(document.body).backgroundColor")
    assert light == "rgb(255, 255, 255)" and dark != light
    assert page.run("document.documentElement.scrollWidth") <= 390, "nothing sticks out of a phone"
    page.click(".row:nth-child(2)")
    page.until("document.querySelectorAll('.sample').length === 5")
    assert page.run("getComputedStyle(document.querySelector('.pane')).display") == "none"
    assert page.run("document.documentElement.scrollWidth") <= 390
    page.screenshot(tmp_path / "dark.png")
    assert len(page.send("Page.printToPDF", printBackground=True)["data"]) > 10_000
    assert page.run("document.querySelectorAll('.generation[data-filled]').length") == 5, "all samples are printed"


def test_a_missing_part_is_told(page: Page, folder: Path) -> None:
    part = folder / "parts" / "problems" / "0" / "00000.js"
    content = part.read_bytes()
    part.unlink()
    try:
        page.open(folder / "index.html", "#view=problems&open=toy/4&who=base")
        page.until(
            "document.querySelector('.samples').innerText.includes('could not be read. Was the whole folder copied?')"
        )
    finally:
        part.write_bytes(content)
    page.open(folder / "index.html", "#view=problems&open=toy/4&who=base")
    page.until("document.querySelectorAll('.sample').length === 5")


def test_no_file_is_over_the_limit(folder: Path) -> None:
    assert max(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= PART_BYTES
