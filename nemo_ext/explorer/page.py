"""The page itself, which is the same for all data: its HTML, style, script and KaTeX."""

import base64
import re
import shutil
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from nemo_ext.records.files import write_text_atomic

HERE = Path(__file__).parent
STATIC, KATEX = HERE / "static", HERE / "katex"
_SOURCES = re.compile(r"src:url\(fonts/(KaTeX_[\w-]+)\.woff2\)[^;}]*")


def write_index(path: Path, title: str) -> None:
    environment = Environment(loader=FileSystemLoader(STATIC), autoescape=True, undefined=StrictUndefined)
    template = environment.get_template("index.html.jinja")
    write_text_atomic(path, template.render(title=title))


def write_page(folder: Path) -> None:
    """The files that index.html names, in `folder`."""
    folder.mkdir(parents=True)
    for path in [*sorted(STATIC.glob("*.js")), STATIC / "explorer.css", KATEX / "katex.min.js"]:
        shutil.copyfile(path, folder / path.name)
    shutil.copyfile(KATEX / "LICENSE", folder / "katex.LICENSE")
    (folder / "katex.css").write_text(_with_fonts((KATEX / "katex.min.css").read_text()))


def _with_fonts(css: str) -> str:
    """Fonts as data in the style: browsers may refuse a page from disk the fonts beside it."""
    return _SOURCES.sub(lambda match: f"src:url({_data(match[1])}) format('woff2')", css)


def _data(font: str) -> str:
    return f"data:font/woff2;base64,{base64.b64encode((KATEX / 'fonts' / f'{font}.woff2').read_bytes()).decode()}"
