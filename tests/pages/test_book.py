"""The built book: complete, self-contained, light, and readable without seeing the figures."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import notebooks
import pytest
import yaml
from address import repository
from bs4 import BeautifulSoup
from conftest import ROOT

ASSETS = ROOT / "book" / "assets"
EMBEDS = ("src", "srcset", "poster", "data", "xlink:href")  # attributes whose content is loaded
LOADED_LINKS = ("stylesheet", "icon", "preload", "modulepreload", "manifest")

Pages = dict[Path, BeautifulSoup]


@pytest.fixture(scope="module")
def pages(html: Path) -> Pages:
    """Every page of the book, parsed."""
    paths = [path for path in html.rglob("*.html") if "_static" not in path.parts]
    return {path: BeautifulSoup(path.read_text(), "html.parser") for path in paths}


def test_a_book_with_a_warning_is_not_done(copy_of_tree: Path) -> None:
    (copy_of_tree / ".venv").symlink_to(sys.prefix)
    (copy_of_tree / ".live").symlink_to(ROOT / ".live")
    (copy_of_tree / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    (copy_of_tree / "book" / "index.md").write_text("# A page\n\n{ref}`nowhere`\n")
    command = ["make", "book", "PYTHON=true"]  # leaves .venv as it is
    for _ in range(2):  # the second time no source has changed since
        done = subprocess.run(command, cwd=copy_of_tree, capture_output=True, text=True)
        assert done.returncode != 0
        assert "nowhere" in done.stderr


def chapter_page(html: Path, notebook: Path) -> Path:
    return html / notebook.relative_to(ROOT).with_suffix(".html")


def loaded(page: BeautifulSoup) -> list[str]:
    """The addresses that a browser asks for by itself when it shows the page."""
    found = [tag[name] for name in EMBEDS for tag in page.find_all(attrs={name: True})]
    for link in page.find_all("link", href=True):
        if set(link["rel"]) & set(LOADED_LINKS):
            found.append(link["href"])
    for style in [tag["style"] for tag in page.find_all(style=True)] + [
        tag.text for tag in page.find_all("style")
    ]:
        found += css_addresses(style)
    return [address for address in found if not address.startswith("data:")]


def css_addresses(css: str) -> list[str]:
    found = re.findall(r"""(?:@import\s+(?:url\(\s*)?|url\(\s*)["']?([^"')\s;]+)""", css)
    return [address for address in found if not address.startswith(("data:", "#"))]


def local(base: Path, address: str) -> Path:
    """The file behind an address on a page or in a style sheet of the book."""
    return (base.parent / unquote(urlsplit(address).path)).resolve()


def test_starts_at_index(html: Path) -> None:
    assert (html / "index.html").is_file()
    assert (html / "book" / "index.html").is_file()


def test_every_internal_link_arrives(pages: Pages) -> None:
    ids = {path: {tag["id"] for tag in page.find_all(id=True)} for path, page in pages.items()}
    for path, page in pages.items():
        for link in page.find_all("a", href=True):
            address = urlsplit(link["href"])
            if address.scheme or address.netloc or link["href"] == "#":
                continue
            target = local(path, link["href"]) if address.path else path
            assert target.exists(), f"{path.name} links to {link['href']}"
            if address.fragment and target in ids:
                assert unquote(address.fragment) in ids[target], f"{path.name}: {link['href']}"


def test_nothing_comes_from_another_host(html: Path, pages: Pages) -> None:
    for path, page in pages.items():
        for address in loaded(page):
            assert not urlsplit(address).netloc, f"{path.name} loads {address}"
            assert local(path, address).is_file(), f"{path.name} misses {address}"
    for path in html.rglob("*.css"):
        for address in css_addresses(path.read_text()):
            assert not urlsplit(address).netloc, f"{path.name} loads {address}"


def test_every_figure_says_what_it_shows(pages: Pages) -> None:
    for path, page in pages.items():
        for image in page.find_all("img"):
            assert image.has_attr("alt"), f"{path.name}: {image}"
        for image in page.select("article img"):
            assert image["alt"], f"{path.name}: {image}"
        for figure in page.select(".bn-figure > svg"):
            assert figure["role"] == "img"
            assert figure.get("aria-label"), path.name


def test_figures_are_inline_and_follow_the_color_mode(html: Path, pages: Pages) -> None:
    assert not list(html.rglob("_images/*.svg"))
    for path, page in pages.items():
        for figure in page.select(".bn-figure > svg"):
            assert "var(--bn-" in str(figure), f"{path.name}: {figure['aria-label']}"
            for name in re.findall(r"var\(--bn-(\w+)\)", str(figure)):
                assert f"--bn-{name}: #" in (html / "_static" / "palette.css").read_text()


def test_ids_are_unique(pages: Pages) -> None:
    for path, page in pages.items():
        ids = [tag["id"] for tag in page.find_all(id=True)]
        assert not {one for one in ids if ids.count(one) > 1}, path.name


def test_claims_open_to_show_their_assertion(html: Path, pages: Pages) -> None:
    for notebook in notebooks.chapters():
        boxes = pages[chapter_page(html, notebook)].select("details.bn-claim")
        assert boxes, notebook
        assert all(box.summary.text.startswith("✓ ") for box in boxes)
        assert all("assert" in box.select_one("pre").text for box in boxes)


def test_chapters_open_alike(html: Path, pages: Pages) -> None:
    index = pages[html / "book" / "index.html"]
    listed = {
        local(html / "book" / "index.html", link["href"]): link.find_parent("li")
        for link in index.select(".bn-chapters a.internal")
    }
    parts = [
        part
        for part in yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"]
        if "numbered" in part
    ]
    chapters = [html / f"{chapter['file']}.html" for part in parts for chapter in part["chapters"]]
    assert list(listed) == [path.resolve() for path in chapters]
    for path in chapters:
        article = pages[path].article
        assert article.select_one(".bn-kicker").text in [part["caption"] for part in parts]
        question = article.select_one(".bn-question").text
        minutes = re.search(r"Time: (\d+) minutes", article.select_one(".bn-opener").text)[1]
        assert question.endswith("?")
        assert "import" in article.select_one(".bn-setup pre").text
        assert f"{minutes} min" in listed[path.resolve()].text
        assert question in listed[path.resolve()].text


def test_hidden_code_opens(pages: Pages) -> None:
    boxes = [box for page in pages.values() for box in page.select("details.bn-code")]
    assert len(boxes) > 5
    assert all(box.select_one("pre").text.strip() for box in boxes)


def test_maths_is_set_by_local_files(html: Path, pages: Pages) -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    components = config["mathjax3_config"]["loader"]["load"]
    for name in ["core", "output/chtml/fonts/tex", *components]:
        file = name.replace("[tex]", "input/tex/extensions") + ".js"
        assert (html / "_static" / "mathjax" / file).is_file(), file
    for path, page in pages.items():
        if page.select(".math"):
            assert page.select('script[src*="mathjax/startup.js"]'), path.name


def test_punctuation_stays_with_the_formula_before_it(pages: Pages) -> None:
    together = [span for page in pages.values() for span in page.select(".bn-together")]
    assert len(together) > 100
    assert all(span.select_one(".math") and span.text[-1] in ".,;:!?)]" for span in together)
    for page in pages.values():
        for math in page.select("span.math"):
            if "bn-together" not in math.parent.get("class", []):
                assert not re.match(r"[.,;:!?)\]]", math.next_sibling or ""), math.parent.text


@pytest.mark.parametrize("name", ["fonts", "mathjax"])
def test_what_others_made_is_what_was_released(name: str) -> None:
    folder = ASSETS / name
    listed = dict(
        reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines()
    )
    present = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert present == {*listed, "README.md", "SHA256SUMS"}
    for name, checksum in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == checksum, name


def test_every_icon_is_in_the_book_s_fonts(pages: Pages) -> None:
    readme = (ASSETS / "vendor" / "fontawesome" / "README.md").read_text()
    not_icons = {"fa-solid", "fa-brands", "fa-lg", "fa-fw"}
    for path, page in pages.items():
        for tag in page.select('[class*="fa-"]'):
            for icon in {name for name in tag["class"] if name.startswith("fa-")} - not_icons:
                assert re.search(rf"(?<![\w-]){icon[3:]}(?![\w-])", readme), f"{path.name}: {icon}"


def test_every_chapter_opens_in_colab(html: Path, pages: Pages) -> None:
    source = repository()["url"].removeprefix("https://github.com/")
    if "://" in source:
        pytest.skip("Colab opens what is on GitHub only")
    for notebook in notebooks.chapters():
        file = notebook.relative_to(ROOT).as_posix()
        expected = f"https://colab.research.google.com/github/{source}/blob/main/{file}"
        links = pages[chapter_page(html, notebook)].find_all("a", href=expected)
        assert links, notebook
