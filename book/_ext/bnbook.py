"""The book's Sphinx extension: figures that follow the color mode, claims, and a lighter page."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from docutils.parsers.rst.directives import unchanged_required
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from bnlib.figures import COLORS

LOGGER = logging.getLogger(__name__)
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
PX_PER_PT = 4 / 3


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("figure-of", FigureOf)
    app.add_post_transform(InlineFigures)
    app.add_post_transform(ClaimBoxes)
    app.add_post_transform(UniqueIds)
    app.add_post_transform(KeepPunctuation)
    app.connect("config-inited", disconnect_thebe)
    app.connect("builder-inited", write_palette)
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.connect("html-page-context", drop_unused_mathjax, priority=900)  # after MathJax is added
    app.add_css_file("palette.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def disconnect_thebe(app: Sphinx, config: object) -> None:
    """Keep sphinx-thebe, which Jupyter Book always loads, from writing its script on every page."""
    unwanted = ("init_thebe_core", "update_thebe_context")
    for event, listeners in app.events.listeners.items():
        kept = [it for it in listeners if getattr(it.handler, "__name__", "") not in unwanted]
        app.events.listeners[event] = kept


def write_palette(app: Sphinx) -> None:
    """Write the palette of bnlib.figures as CSS variables; a printed page is a light one."""
    light, dark = (
        "".join(f"  --bn-{name}: {color[mode]};\n" for name, color in COLORS.items())
        for mode in (0, 1)
    )
    static = Path(app.outdir, "_static")
    static.mkdir(parents=True, exist_ok=True)
    static.joinpath("palette.css").write_text(
        f':root {{\n{light}}}\n@media screen {{\nhtml[data-theme="dark"] {{\n{dark}}}\n}}\n'
    )


def drop_unused_mathjax(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Load no MathJax on a page without maths; Sphinx does when a page below it in the toc has."""
    if 'class="math' not in context.get("body", ""):
        scripts = context["script_files"]
        scripts[:] = [it for it in scripts if "mathjax" not in f"{it}{it.attributes}".lower()]


def skip_tuple_fields(
    app: Sphinx, what: str, name: str, member: object, skip: bool, options: object
) -> bool | None:
    """Leave out the fields of named tuples: all that Python says of them is their position."""
    return True if (member.__doc__ or "").startswith("Alias for field number") else None


class FigureOf(SphinxDirective):
    """`{figure-of} chapter.ipynb name`: a figure that a chapter displayed under that name."""

    required_arguments = 2
    option_spec = {"alt": unchanged_required}
    has_content = True  # the caption

    def run(self) -> list[nodes.Node]:
        relative, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(relative)
        for cell in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                scrapbook = output.get("metadata", {}).get("scrapbook", {})
                if scrapbook.get("name") == self.arguments[1]:
                    svg = "".join(output["data"]["image/svg+xml"])
                    html = inline_svg(svg, self.options["alt"], "figure-of-")
                    figure = nodes.figure("", nodes.raw("", html, format="html"))
                    text = nodes.container()
                    self.state.nested_parse(self.content, self.content_offset, text)
                    figure += nodes.caption("", "", *text[0].children)
                    return [figure]
        raise self.error(f"{self.arguments[0]} has no figure {self.arguments[1]!r}; was it run?")


class InlineFigures(SphinxPostTransform):
    """Put every SVG of this machine into the page itself, in the colors of the page."""

    default_priority = 50  # when MyST-NB has chosen among the formats, before images are copied
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for number, node in enumerate(list(self.document.findall(nodes.image))):
            alt = node.get("alt", "")
            # Without alt metadata MyST-NB takes the file's path.
            if not alt or alt == node["uri"]:
                LOGGER.warning("figure without alt text", location=node)
            if node["uri"].endswith(".svg") and "://" not in node["uri"]:
                svg = Path(self.app.srcdir, node["uri"]).read_text(encoding="utf-8")
                node.replace_self(
                    nodes.raw("", inline_svg(svg, alt, f"figure{number}-"), format="html")
                )


def inline_svg(svg: str, alt: str, prefix: str) -> str:
    """Make an SVG file part of an HTML page.

    Args:
        svg: the content of the file.
        alt: what the figure shows, for those who do not see it.
        prefix: goes before every id, so that no id repeats in the page.

    Returns:
        The HTML. The palette's light colors have become CSS variables, and a figure that is wider
        than the page scrolls in a box of its own (the theme's script makes it reachable by key).
    """
    root = ElementTree.fromstring(svg)
    width = float(root.attrib["viewBox"].split()[2])
    if root.attrib.get("width", "").endswith("pt"):
        width *= PX_PER_PT
    for unwanted in ("version", "width", "height"):
        root.attrib.pop(unwanted, None)
    root.attrib.update({"role": "img", "aria-label": alt, "style": f"--width: {width:.0f}px"})
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (SVG + "style", SVG + "metadata"):  # a style would hold page-wide
                parent.remove(child)
    for element in root.iter():
        attributes = element.attrib
        if attributes.get("id") in used:
            attributes["id"] = prefix + attributes["id"]
        else:
            attributes.pop("id", None)
        if HREF in attributes:
            attributes["href"] = re.sub("^#", "#" + prefix, attributes.pop(HREF))
        for key, value in attributes.items():
            value = value.replace("url(#", f"url(#{prefix}")
            if key in ("d", "points", "transform", "x", "y"):  # a hundredth of a point is enough
                value = re.sub(r"\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", value)
                value = " ".join(value.split())
            if key == "style":  # text takes the page's font
                value = re.sub(r"font-family: [^;]*;? ?", "", value)
            attributes[key] = value
    ElementTree.register_namespace("", SVG.strip("{}"))
    html = ElementTree.tostring(root, encoding="unicode")
    for name, color in COLORS.items():
        html = re.sub(color.light, f"var(--bn-{name})", html, flags=re.IGNORECASE)
    return f'<div class="bn-figure pst-scrollable-table-container">{html}</div>'


class ClaimBoxes(SphinxPostTransform):
    """Show a cell tagged `claim` as the line it printed, which opens to show the assertion."""

    default_priority = 150  # before MyST-NB makes its own boxes for hidden cells
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for cell in list(self.document.findall(nodes.container)):
            if "tag_claim" not in cell["classes"]:
                continue
            parts = {part["nb_element"]: part for part in cell.children}
            if "cell_code_output" not in parts:  # a draft that was not run yet
                continue
            printed = parts["cell_code_output"].astext().strip()
            cell.attributes.pop("hide_mode", None)
            cell.children = [
                nodes.raw(
                    "",
                    f'<details class="bn-claim"><summary>{escape(printed)}</summary>',
                    format="html",
                ),
                parts["cell_code_source"],
                nodes.raw("", "</details>", format="html"),
            ]


class UniqueIds(SphinxPostTransform):
    """Drop the ids that sphinx-proof and sphinx-exercise give to each of their boxes alike."""

    default_priority = 150
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        repeated = {"proof", "proof-content", "exercise-content", "solution-content"}
        for node in self.document.findall(nodes.Element):
            node["ids"] = [one for one in node["ids"] if one not in repeated]


class KeepPunctuation(SphinxPostTransform):
    """Keep a comma or a full stop on the line of the formula before it."""

    default_priority = 150
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for math in list(self.document.findall(nodes.math)):
            parent, after = math.parent, math.next_node(descend=False, siblings=True)
            mark = re.match(r"[.,;:!?)\]]+", after) if isinstance(after, nodes.Text) else None
            if mark is None:
                continue
            first = parent.index(math)
            parent[first : first + 2] = [
                nodes.raw("", '<span class="bn-together">', format="html"),
                math,
                nodes.raw("", f"{escape(mark[0])}</span>", format="html"),
                nodes.Text(after[mark.end() :]),
            ]
