"""The book elsewhere: its address, previews of links, downloads, and all of it on paper."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import card
import pdf
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT
from pdf import PAGES
from PIL import Image
from playwright.sync_api import Browser, Page
from pypdf import PdfReader

ASSETS = ROOT / "book" / "assets"
SITE = pdf.SITE
Printed = tuple[PdfReader, Page]


@pytest.fixture(scope="module")
def heads(html: Path) -> dict[str, BeautifulSoup]:
    """The head of each page of the table of contents, and of the page that leads to the first."""
    found = {}
    for name in [*PAGES, "index"]:
        text = (html / f"{name}.html").read_text()
        found[name] = BeautifulSoup(text[: text.index("</head>")], "html.parser")
    return found


def content(head: BeautifulSoup, name: str) -> str:
    (tag,) = head.select(f'meta[property="{name}"], meta[name="{name}"]')
    return tag["content"]


def test_every_page_knows_its_address(heads: dict[str, BeautifulSoup]) -> None:
    for name, head in heads.items():
        address = f"{SITE}{'book/index' if name == 'index' else name}.html"
        assert [link["href"] for link in head.select('link[rel="canonical"]')] == [address]
        assert content(head, "og:url") == address


def test_the_sitemap_lists_every_page(html: Path) -> None:
    places = ElementTree.parse(html / "sitemap.xml").getroot().findall("{*}url/{*}loc")
    assert sorted(place.text or "" for place in places) == sorted(
        f"{SITE}{it}.html" for it in PAGES
    )


def test_a_link_to_a_page_shows_what_it_is_about(heads: dict[str, BeautifulSoup]) -> None:
    for name, head in heads.items():
        about = content(head, "og:description")
        assert content(head, "description") == about
        assert 40 <= len(about) <= 200, name
        assert not re.search(r"[\\$`*{}]|\[\w|Chapter \d", about), f"{name}: {about}"
        assert content(head, "og:title") in head.title.text
        assert content(head, "og:image") == f"{SITE}_static/card.png"
        assert len(content(head, "og:image:alt")) > 40
        assert content(head, "twitter:card") == "summary_large_image"
    for part in pdf.TOC["parts"]:
        for chapter in part["chapters"] if "numbered" in part else []:  # which open with a question
            assert "?" in content(heads[chapter["file"]], "description"), chapter


def test_the_pictures_have_the_size_that_is_asked_for(html: Path) -> None:
    for name, size, limit in (
        ("card.png", (1200, 630), 150_000),
        ("apple-touch-icon.png", (180, 180), 20_000),
    ):
        file = html / "_static" / name
        assert Image.open(file).size == size
        assert file.stat().st_size <= limit


def test_the_card_shows_the_curves_of_the_chapter() -> None:
    assert card.card() == (ASSETS / "card.svg").read_text(), "run python tools/card.py"


def test_phones_find_an_icon(html: Path, heads: dict[str, BeautifulSoup]) -> None:
    for name in PAGES:
        icons = heads[name].select('link[rel="icon"], link[rel="apple-touch-icon"]')
        assert len(icons) == 2
        for icon in icons:
            assert (html / name / ".." / icon["href"].partition("?")[0]).resolve().is_file()


def test_a_chapter_downloads_as_the_notebook_it_is(page: Page, site: str) -> None:
    page.goto(f"{site}/book/idea/transform.html")
    page.get_by_role("button", name="Download this page").click()
    with page.expect_download() as started:
        page.get_by_role("link", name="This page as a notebook").click()
    file = ROOT / "book" / "idea" / "transform.ipynb"
    assert started.value.path().read_bytes() == file.read_bytes()
    assert started.value.suggested_filename == file.name


def test_a_printed_page_is_its_text_in_light_colors(page: Page, site: str) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(f"{site}/book/idea/transform.html")
    for what in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer", ".headerlink"):
        assert page.locator(what).first.is_hidden(), what
    assert page.get_by_role("heading", name="The transform").is_visible()
    assert page.locator(".bn-claim .highlight").first.is_visible()
    style = "it => [getComputedStyle(it).backgroundColor, getComputedStyle(it).color]"
    assert page.locator("html").evaluate(style)[0] == "rgb(255, 255, 255)"
    assert page.locator(".highlight .kn").first.evaluate(style)[1] == "rgb(29, 36, 44)"


# --- On paper ------------------------------------------------------------------------------------

SOME = ["book/idea/transform", "book/reference/notation"]  # printing all would take a minute
NUMBER = re.compile(r'class="(?:eqno|caption-number|section-number)">([^<]*)<')


def numbers(html: str) -> list[str]:
    """Those of a page's sections, equations, figures, theorems and exercises, as they stand."""
    return [number.strip() for number in NUMBER.findall(html)]


@pytest.fixture(scope="module")
def whole(html: Path) -> str:
    """The page from which the PDF is printed."""
    return pdf.one_page(html, html.parent)


@pytest.fixture(scope="module")
def printed(html: Path, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Printed:
    """The PDF of a small part of the book, and the page from which it was printed."""
    file, tab = tmp_path_factory.mktemp("pdf") / "book.pdf", browser.new_page()
    parts = [{"caption": "The idea", "chapters": [{"file": name} for name in SOME]}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdf, "TOC", {"root": "book/index", "parts": parts})
        pdf.make(html, file, tab)
    return PdfReader(file), tab


def test_the_pdf_has_every_page_with_its_numbers(html: Path, whole: str) -> None:
    starts = [whole.index(f'id="{pdf.anchor(name)}"') for name in PAGES]
    assert starts == sorted(starts)
    for name, start, end in zip(PAGES, starts, [*starts[1:], len(whole)], strict=True):
        page = (html / f"{name}.html").read_text()
        article = page[page.index("<article") : page.index("</article>")]
        assert numbers(whole[start:end]) == numbers(article), name
    assert len(numbers(whole)) > 300


def test_links_within_the_book_stay_in_the_pdf(whole: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', whole)
    assert len(ids) == len(set(ids))
    links = re.findall(r'<a\b[^>]* href="([^"]+)"', whole)
    assert sum(link.startswith("#") for link in links) > 1000
    for link in links:
        assert link[1:] in ids if link.startswith("#") else link.startswith("https://"), link
    book = tuple(f"{SITE}{name}.html" for name in PAGES)
    assert not [link for link in links if link.startswith(book)]


def test_what_is_wider_than_the_paper_is_found(printed: Printed) -> None:
    tab = printed[1]
    assert tab.evaluate(pdf.TOO_WIDE) == []  # else there would be no PDF
    formula = tab.locator("mjx-container[display=true]").first
    formula.evaluate("it => { it.style.fontSize = '200px'; }")
    assert tab.evaluate(pdf.TOO_WIDE)


def test_the_pdf_says_what_it_is(printed: Printed) -> None:
    assert printed[0].metadata.title == "Batch Normalization"
    assert printed[0].metadata.author == pdf.CONFIG["author"]
    assert printed[0].root_object["/Lang"] == "en"
    assert printed[0].root_object["/MarkInfo"][
        "/Marked"
    ]  # a screen reader knows headings and tables


def test_bookmarks_and_contents_lead_to_the_chapters(printed: Printed) -> None:
    found = {}

    def walk(items: list) -> None:
        for item in items:
            if isinstance(item, list):
                walk(item)
            else:
                found[item.title] = printed[0].get_destination_page_number(item) + 1

    walk(printed[0].outline)
    assert "2.3. What is ϵ for?" in found  # with the formula
    contents = printed[0].pages[1].extract_text()
    for title in ("2. The transform", "2.8. Exercises", "Notation"):
        number = found[title]
        assert title.split()[-1] in printed[0].pages[number - 1].extract_text()
        assert re.search(rf"{re.escape(title)}\s*{number}\b", contents), contents


def test_paper_shows_the_numbers_hints_and_assertions(html: Path, printed: Printed) -> None:
    text = "".join("".join(page.extract_text() for page in printed[0].pages).split())
    page = (html / f"{SOME[0]}.html").read_text()
    for number in numbers(page[page.index("<article") : page.index("</article>")]):
        assert "".join(number.split()) in text, number
    for what in ("✓y=x,to12digits", "assertnp.allclose", "Lookwhereepsgoes."):
        assert what in text


def test_the_cheat_sheet_is_one_page_of_a4(html: Path, browser: Browser, tmp_path: Path) -> None:
    file, tab = tmp_path / "sheet.pdf", browser.new_page()
    pdf.make_sheet(html, file, tab)  # which fails when something is wider than the paper
    (page,) = PdfReader(file).pages
    assert [round(float(side) / 72 * 25.4) for side in page.mediabox[2:]] == [210, 297]
    printed = "".join(page.extract_text().split())
    for heading in tab.locator("article :is(h1, h2)").all_text_contents():
        assert "".join(heading.rstrip("#").split()) in printed, heading
    links = [it.get_object()["/A"]["/URI"] for it in page["/Annots"]]
    assert len(links) > 20
    assert all(link.startswith(SITE) for link in links)
    assert tab.evaluate(pdf.TOO_WIDE) == []
    last = tab.locator("article tr:last-child").last.inner_text()
    assert "".join(last.split()) in printed  # nothing is cut off at the foot


def test_without_chromium_the_reason_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "tools/pdf.py", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env={"PATH": ""}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == pdf.NO_BROWSER + "\n"


def test_the_book_offers_the_pdf_of_its_sources_and_no_other(copy_of_tree: Path) -> None:
    def build() -> str:
        command = [sys.executable, "tools/build.py", str(copy_of_tree)]
        done = subprocess.run(command, cwd=copy_of_tree, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return (html / "book" / "index.html").read_text()

    html = copy_of_tree / "_build" / "html"
    page = copy_of_tree / "book" / "index.md"
    page.write_text("# A page\n\n```{pdf-link} batch-normalization.pdf\nTake it with you\n```\n")
    (copy_of_tree / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    where = "from bnbook.publish import *; print(pdfs_of_sources('_build/html')[PDF_NAME])"
    file = copy_of_tree / subprocess.check_output(
        [sys.executable, "-c", where],
        cwd=copy_of_tree,
        env={"PYTHONPATH": f"{copy_of_tree}:{copy_of_tree / 'book' / '_ext'}"},
        text=True,
    ).strip()  # fmt: skip
    file.parent.mkdir(parents=True)
    file.write_bytes(b"%PDF")
    text = build()
    assert "Take it with you" in text
    assert text.count('href="../batch-normalization.pdf"') == 2  # on the page and in the menu
    assert (html / "batch-normalization.pdf").read_bytes() == b"%PDF"
    page.write_text(page.read_text() + "\nA new sentence.\n")
    assert "batch-normalization.pdf" not in build()
    assert not (html / "batch-normalization.pdf").exists()
