"""What the book needs on the web: its address on every page, a sitemap, previews of links, the PDF.

The address is `html.baseurl` in _config.yml and stands nowhere else.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from functools import cache
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import Any
from urllib.parse import urljoin

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[3]
PDF_NAME = "batch-normalization.pdf"
SHEET, SHEET_NAME = "book/reference/cheat-sheet", "cheat-sheet.pdf"  # a page by itself
# What the PDF is made of; a change of any of these makes an older one outdated.
SOURCES = ["_config.yml", "_toc.yml", "requirements.txt", "tools/pdf.py", "book", "bnlib"]

PROMISE = (
    "Batch Normalization derived, implemented and put to the test: "
    "every equation is code that you can run, every claim is a test that can fail."
)
CARD_ALT = (
    "Batch Normalization. Every equation is code you can run, every claim a test that can fail. "
    "Below, the test accuracy on MNIST rises almost at once with BatchNorm, and later without."
)


def setup(app: Sphinx) -> None:
    app.add_directive("pdf-link", PdfLink)
    app.add_css_file("print.css", priority=900)  # after book.css, which it overrides
    app.connect("config-inited", leave_out_what_needs_github)
    app.connect("html-page-context", add_metadata)
    app.connect("html-page-context", offer_downloads, priority=600)  # after the theme's buttons
    # Before sphinx-external-toc, which writes a bare redirection where there is none.
    app.connect("build-finished", write_root_page, priority=400)
    app.connect("build-finished", write_sitemap)
    app.connect("build-finished", copy_pdfs)


def leave_out_what_needs_github(app: Sphinx, config: Any) -> None:
    """Elsewhere a page has no buttons for Colab and for the repository: both know GitHub."""
    options = config.html_theme_options
    if not options["repository_url"].startswith("https://github.com/"):
        options |= {"use_repository_button": False, "use_issues_button": False}
        options["launch_buttons"] = {}
        options["repository_provider"] = "gitlab"  # the theme asks for one that it knows


# --- What a page says about itself ---------------------------------------------------------------


def add_metadata(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document
) -> None:
    """Add to a page its description, and what others show of it when someone shares its link."""
    icon = context["pathto"]("_static/apple-touch-icon.png", 1)
    chapter = doctree is not None and pagename != app.config.root_doc
    context["metatags"] = (
        context.get("metatags", "")
        + f'\n<link rel="apple-touch-icon" href="{icon}" />'
        + metatags(app, pagename, describe(doctree) if chapter else PROMISE)
    )


def metatags(app: Sphinx, pagename: str, description: str) -> str:
    base, titles = app.config.html_baseurl, app.env.titles
    title = titles[pagename].astext() if pagename in titles else app.config.html_title
    tags = {
        "og:type": "website" if pagename == app.config.root_doc else "article",
        "og:site_name": app.config.html_title,
        "og:title": title,
        "og:description": description,
        "og:url": urljoin(base, app.builder.get_target_uri(pagename)),
        "og:image": urljoin(base, "_static/card.png"),
        "og:image:width": "1200",
        "og:image:height": "630",
        "og:image:alt": CARD_ALT,
    }
    lines = [f'<meta property="{key}" content="{escape(text)}" />' for key, text in tags.items()]
    lines.append('<meta name="twitter:card" content="summary_large_image" />')
    lines.append(f'<meta name="description" content="{escape(description)}" />')
    return "\n" + "\n".join(lines)


def describe(document: nodes.document) -> str:
    """The first paragraph of a page, which for a chapter is its question, as plain text."""
    for node in next(document.findall(nodes.section)).children:
        running = isinstance(node, nodes.paragraph) and "bn-kicker" not in node["classes"]
        if running and not any(node.findall(nodes.math)):
            text = re.sub(r"\s*\[[^\]]*\d{4}\w?\]", "", node.astext())  # citations
            return shorten(" ".join(text.split()), 200, placeholder=" …")
    return PROMISE


# --- Files for the whole site --------------------------------------------------------------------


def write_root_page(app: Sphinx, exception: Exception | None) -> None:
    """Lead from the site's first address to the first page; the link's preview is the same."""
    start = app.builder.get_target_uri(app.config.root_doc)
    canonical = urljoin(app.config.html_baseurl, start)
    Path(app.outdir, "index.html").write_text(
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />\n'
        f"<title>{escape(app.config.html_title)}</title>\n"
        f'<meta http-equiv="refresh" content="0; url={start}" />\n'
        f'<link rel="canonical" href="{canonical}" />'
        f"{metatags(app, app.config.root_doc, PROMISE)}\n</head>\n"
        f'<body><a href="{start}">{escape(app.config.html_title)}</a></body>\n</html>\n',
        encoding="utf-8",
    )


def write_sitemap(app: Sphinx, exception: Exception | None) -> None:
    """List the pages of the table of contents."""
    base = app.config.html_baseurl
    pages = (urljoin(base, app.builder.get_target_uri(name)) for name in sorted(app.env.found_docs))
    Path(app.outdir, "sitemap.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        + "".join(f"<url><loc>{page}</loc></url>\n" for page in pages)
        + "</urlset>\n",
        encoding="utf-8",
    )


# --- Downloads -----------------------------------------------------------------------------------


class PdfLink(SphinxDirective):
    """`{pdf-link} FILE`: the text within links to that PDF, and is left out where there is none."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if not pdfs_of_sources(self.env.app.outdir)[name].is_file():
            return []
        up = "../" * self.env.docname.count("/")
        text = escape(" ".join(self.content))
        html = f'<p class="bn-download"><a href="{up}{name}" download>{text}</a></p>'
        return [nodes.raw("", html, format="html")]


def offer_downloads(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Say in the menu of downloads what each of them is, and offer the PDF where there is one."""
    for group in context["header_buttons"]:
        if group["label"] == "download-buttons":
            source, printed = group["buttons"]
            kind = "notebook" if source["text"] == ".ipynb" else "source"
            source |= {"text": f"This page as a {kind} ({source['text']})", "tooltip": None}
            printed |= {"text": "Print this page", "tooltip": None, "icon": "fas fa-file"}
            if pdfs_of_sources(app.outdir)[PDF_NAME].is_file():
                group["buttons"].append(
                    {
                        "type": "link",
                        "url": context["pathto"](PDF_NAME, 1),
                        "text": "The whole book (PDF)",
                        "icon": "fas fa-file-pdf",
                        "label": "download-book-button",
                    }
                )


def copy_pdfs(app: Sphinx, exception: Exception | None) -> None:
    for name, pdf in pdfs_of_sources(app.outdir).items():
        if pdf.is_file():
            shutil.copy(pdf, Path(app.outdir, name))


def pdfs_of_sources(html: str | Path) -> dict[str, Path]:
    """Where tools/pdf.py puts the PDFs of the sources as they now are, beside the folder `html`."""
    folder = Path(html).parent / "pdf"
    return {name: folder / f"{digest_of_sources()}-{name}" for name in (PDF_NAME, SHEET_NAME)}


@cache
def digest_of_sources() -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        for path in sorted([ROOT / name, *(ROOT / name).rglob("*")]):
            inside = path.relative_to(ROOT).as_posix()
            if path.is_file() and "/." not in inside and path.suffix != ".pyc":
                digest.update(inside.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
