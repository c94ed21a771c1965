"""Figures that follow the color mode, in the page itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst.directives import unchanged_required
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from bnbook.svg import inline_svg
from bnlib.figures import COLORS

LOGGER = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    app.add_directive("figure-of", FigureOf)
    app.add_post_transform(InlineFigures)
    app.connect("builder-inited", write_palette)
    app.add_css_file("palette.css")


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
