"""The whole book as one PDF, and its cheat sheet: python tools/pdf.py FOLDER prints the pages of
FOLDER/_build/html.

The built pages are put one behind the other, and Chromium prints them: so every number, figure and
link is that of the page. Then the book is built once more, and offers the file for download.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html import escape
from os.path import relpath
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import pikepdf
import yaml
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))

from bnbook.interactive import scripts  # noqa: E402
from bnbook.publish import PDF_NAME, PROMISE, SHEET, SHEET_NAME, pdfs_of_sources  # noqa: E402

CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
SITE = CONFIG["html"]["baseurl"]
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]
# Without the last four, Chromium asks hosts of its own for things that nobody here needs.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
NO_BROWSER = "The PDF is printed by Chromium or Chrome: install one (Debian: apt install chromium)."

TEXT_WIDTH = 605  # CSS pixels: the 160 mm of print.css, for what is as wide as the window
SHEET_WIDTH = 703  # the 186 mm of the cheat sheet
PRINT = {"prefer_css_page_size": True, "print_background": True}

# The page scrolls what is too wide, paper cuts it off.
TOO_WIDE = """
[...document.querySelectorAll(".bd-article *:not(svg *)")]
  .filter((it) => {
    const { left, right } = it.getBoundingClientRect();
    return left < -1 || right > innerWidth + 1;
  })
  .filter((it) => !it.closest("mjx-assistive-mml")) // which is heard, not seen
  .map((it) => `${it.closest("article").id} ${it.textContent.trim().slice(0, 60)}`)
"""
LINKS_TO_THE_WEB = """
([files, site]) => {
  for (const link of document.links) link.href = link.href.replace(files, site);
}
"""
FILL_IN_PAGE_NUMBERS = """
(numbers) => {
  for (const link of document.querySelectorAll(".bn-contents a")) {
    link.querySelector(".bn-page").textContent = numbers[link.hash.slice(1)];
  }
}
"""


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    html = folder / "_build" / "html"
    book, sheet = (pdfs_of_sources(html)[name] for name in (PDF_NAME, SHEET_NAME))
    if not (book.is_file() and sheet.is_file()):
        if BROWSER is None:
            sys.exit(NO_BROWSER)
        shutil.rmtree(book.parent, ignore_errors=True)
        book.parent.mkdir()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
            make(html, book, browser.new_page())
            make_sheet(html, sheet, browser.new_page())
            browser.close()
        subprocess.run([sys.executable, ROOT / "tools" / "build.py", folder], check=True)
    if not (html / PDF_NAME).is_file():
        sys.exit("The sources changed while the PDF was made: run this again.")
    print(f"The PDF: {html / PDF_NAME}\nThe cheat sheet: {html / SHEET_NAME}")


def make(html: Path, pdf: Path, tab: Page) -> None:
    """Print the built book in the folder `html` to the file `pdf`, by way of a page beside it."""
    page, printed = pdf.with_suffix(".html"), pdf.with_suffix(".tmp")
    page.write_text(one_page(html, pdf.parent), encoding="utf-8")
    print_page(tab, page, printed)
    titles = tab.locator("h1, h2, h3, h4, h5, h6").all_text_contents()
    with pikepdf.open(printed) as document:  # title and language are the page's
        with document.open_outline() as outline:
            for bookmark, title in zip(walk(outline.root), titles, strict=True):
                bookmark.title = title.strip()  # Chromium leaves out the formulas
        document.docinfo["/Author"] = CONFIG["author"]
        document.save(pdf, object_stream_mode=pikepdf.ObjectStreamMode.generate)  # a third
    page.unlink()
    printed.unlink()


def walk(bookmarks: list[pikepdf.OutlineItem]) -> Iterator[pikepdf.OutlineItem]:
    """Bookmarks and those under them, in the order of the pages."""
    for bookmark in bookmarks:
        yield bookmark
        yield from walk(bookmark.children)


def print_page(tab: Page, page: Path, pdf: Path) -> None:
    """Print twice: where the chapters begin is known only when they have been printed."""
    open_for_print(tab, page, TEXT_WIDTH)
    options = {"path": pdf, **PRINT}
    tab.pdf(**options)
    with pikepdf.open(pdf) as document:
        pages = {page.objgen: number for number, page in enumerate(document.pages, 1)}
        places = document.Root.Dests.items()
        numbers = {name.lstrip("/"): pages[place[0].objgen] for name, place in places}
    tab.evaluate(FILL_IN_PAGE_NUMBERS, numbers)
    tab.pdf(**options, outline=True, tagged=True)


def make_sheet(html: Path, pdf: Path, tab: Page) -> None:
    """Print the cheat sheet, whose links lead to the pages on the web, to the file `pdf`."""
    open_for_print(tab, html / f"{SHEET}.html", SHEET_WIDTH)
    tab.evaluate(LINKS_TO_THE_WEB, [f"{html.as_uri()}/", SITE])
    tab.pdf(path=pdf, **PRINT, tagged=True)


def open_for_print(tab: Page, page: Path, width: int) -> None:
    """Show a page as on paper of that width in CSS pixels, and see that nothing is wider."""
    tab.set_default_timeout(600_000)
    tab.emulate_media(media="print", color_scheme="light")
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto(page.as_uri())
    tab.evaluate("MathJax.startup.promise")
    if too_wide := tab.evaluate(TOO_WIDE):
        sys.exit("\n".join(["This is wider than the paper:", *too_wide]))


def one_page(html: Path, folder: Path) -> str:
    """The pages of the book as one, which is to stand in `folder`."""
    articles = {name: article(html, name, folder) for name in PAGES}
    about = "<h1>About this book</h1>"  # the first page's title is that of the book
    # Of the card that others show beside a link, the curves.
    card = (ROOT / "book" / "assets" / "card.svg").read_text(encoding="utf-8")
    cover = re.sub('viewBox="0 0 [^"]+"', 'viewBox="0 230 1200 400"', card, count=1)
    body = [re.sub("<h2>.*?</h2>", about, articles[TOC["root"]], count=1)]
    contents = []
    for part in TOC["parts"]:
        body.append(f'<h1 class="bn-part">{escape(part["caption"])}</h1>')
        contents.append(f'<p class="bn-part">{escape(part["caption"])}</p>')
        for chapter in part["chapters"]:
            body.append(articles[chapter["file"]])
            contents += entries(articles[chapter["file"]])
    return (
        '<!DOCTYPE html><html lang="en" data-theme="light"><head><meta charset="utf-8">'
        f"<title>{escape(CONFIG['title'])}</title>{head(html, PAGES[1], body, folder)}</head>"
        f'<body class="bn-book"><header class="bn-cover"><h1>{escape(CONFIG["title"])}</h1>'
        f"<p>{escape(PROMISE)}</p><p>{escape(CONFIG['author'])}<br>"
        f'<a href="{SITE}">{SITE.partition("://")[2]}</a></p>{cover}</header>'
        f'<nav class="bn-contents"><h1>Contents</h1>{"".join(contents)}</nav>'
        f"{''.join(body)}</body></html>"
    )


def head(html: Path, name: str, body: list[str], folder: Path) -> str:
    """The style sheets and MathJax of the page `name`, and the scripts of all figures."""
    text = (html / f"{name}.html").read_text(encoding="utf-8").partition("</head>")[0]
    kept = re.findall(
        r'<link [^>]*"stylesheet"[^>]*>|<script [^>]*mathjax[^>]*></script>|'
        "<script>window.MathJax.*?</script>",
        text,
    )
    static = relpath(html / "_static" / "interactive", folder)
    tags = (f'<script defer src="{static}/{it}.js"></script>' for it in scripts("".join(body)))
    return beside(html, name, "".join(kept), folder) + "".join(tags)


def entries(text: str) -> list[str]:
    """The lines of a page in the table of contents: its title and its sections."""
    found = re.findall(
        r'<(?:article|section)[^>]* id="([^"]+)"[^>]*>'
        r'(?:\s*<section[^>]*>\s*<p class="bn-kicker.*)?'  # what stands above a chapter's title
        r"(?:\s*<span id=[^>]*></span>)*\s*<(h[23])>(.*?)</h",
        text,
    )
    return [
        f'<a class="bn-{level}" href="#{place}"><span>{re.sub("<.*?>", "", title)}</span>'
        '<span class="bn-page">000</span></a>'
        for place, level, title in found
    ]


def article(html: Path, name: str, folder: Path) -> str:
    """What a page says, with ids that no other page has, and links that arrive in the PDF.

    The pages are the book's own, and Sphinx escapes each quotation mark in a text: an attribute
    is where it looks like one.
    """
    text = (html / f"{name}.html").read_text(encoding="utf-8")
    text = text[text.index("<article") : text.index("</article>")] + "</article>"
    text = re.sub(r'<a class="headerlink".*?</a>|<p class="bn-download">.*?</p>', "", text)
    text = re.sub(r"(</?h)([1-5])\b", lambda tag: f"{tag[1]}{int(tag[2]) + 1}", text)  # h1: parts
    text = text.replace("<details", "<details open").replace("url(#", f"url(#{anchor(name)}")
    ids = r'( (?:id|for|aria-labelledby|aria-describedby)=")([^"]+)'
    text = re.sub(ids, lambda it: it[1] + anchor(name, it[2]), text)
    text = re.sub(r'( href=")([^"]+)', lambda it: it[1] + link(it[2], name), text)
    text = mark_long(text, "pre", "\n", 25)
    text = mark_long(text, "table", "<tr", 12)
    return beside(html, name, text.replace("<article", f'<article id="{anchor(name)}"', 1), folder)


def mark_long(text: str, tag: str, part: str, limit: int) -> str:
    """Mark what has more parts than the limit: it may break over two pages."""
    return re.sub(
        rf"<{tag}\b(?=(.*?)</{tag}>)",
        lambda it: it[0] + " data-long" * (it[1].count(part) > limit),
        text,
        flags=re.DOTALL,
    )


def beside(html: Path, name: str, text: str, folder: Path) -> str:
    """What the page `name` loads, as `folder` sees it."""
    up = relpath(html / name / "..", folder)
    return re.sub(r'( (?:src|href)=")(?!data:|https:|#)([^"?]+)[^"]*', rf"\1{up}/\2", text)


def anchor(name: str, fragment: str = "") -> str:
    """The id in the PDF of a page, or of a place in it."""
    return f"{name.replace('/', '-')}.{fragment}"


def link(address: str, name: str) -> str:
    """Where a link of the page `name` goes in the PDF: to a place in it, or else to the web."""
    absolute, fragment = urldefrag(urljoin(f"{SITE}{name}.html", address))
    page = absolute.removeprefix(SITE).removesuffix(".html")
    return f"#{anchor(page, fragment)}" if page in PAGES else urljoin(absolute, f"#{fragment}")


if __name__ == "__main__":
    main()
