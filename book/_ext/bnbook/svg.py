"""An SVG file as a part of a page, in the colors of the page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from bnlib.figures import COLORS

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
PX_PER_PT = 4 / 3


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
