"""Claims that open, a lighter page, and what the other extensions leave to be mended."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.writers.html5 import HTML5Translator


def setup(app: Sphinx) -> None:
    app.add_post_transform(ClaimBoxes)
    app.add_post_transform(HiddenCode)
    app.add_post_transform(Answers)
    citation = (visit_citation, HTML5Translator.depart_citation)
    app.add_node(nodes.citation, override=True, html=citation)
    app.add_post_transform(UniqueIds)
    app.add_post_transform(KeepPunctuation)
    app.connect("config-inited", disconnect_thebe)
    app.connect("autodoc-skip-member", skip_tuple_fields)
    app.connect("html-page-context", drop_unused_mathjax, priority=900)  # after MathJax is added
    app.connect("html-page-context", load_frameworks)


def disconnect_thebe(app: Sphinx, config: object) -> None:
    """Keep sphinx-thebe, which Jupyter Book always loads, from writing its script on every page."""
    unwanted = ("init_thebe_core", "update_thebe_context")
    for event, listeners in app.events.listeners.items():
        kept = [it for it in listeners if getattr(it.handler, "__name__", "") not in unwanted]
        app.events.listeners[event] = kept


def visit_citation(translator: HTML5Translator, node: nodes.citation) -> None:
    """An entry of the bibliography: an item of a list. ARIA has given up the role of docutils."""
    HTML5Translator.visit_citation(translator, node)
    translator.body[-1] = translator.body[-1].replace("doc-biblioentry", "listitem")


def drop_unused_mathjax(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Load no MathJax on a page without maths; Sphinx does when a page below it in the toc has."""
    if 'class="math' not in context.get("body", ""):
        scripts = context["script_files"]
        scripts[:] = [it for it in scripts if "mathjax" not in f"{it}{it.attributes}".lower()]


def load_frameworks(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """The script of the table of frameworks, on its page."""
    if "bn-frameworks" in context.get("body", ""):
        app.add_css_file("frameworks.css")
        app.add_js_file("frameworks.js", loading_method="defer")


def skip_tuple_fields(
    app: Sphinx, what: str, name: str, member: object, skip: bool, options: object
) -> bool | None:
    """Leave out the fields of named tuples: all that Python says of them is their position."""
    return True if (member.__doc__ or "").startswith("Alias for field number") else None


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


class HiddenCode(SphinxPostTransform):
    """Put the code of a cell tagged `hide-input` into a slim box, like that of a claim."""

    default_priority = 151  # after the claims, which are tagged so too
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for cell in list(self.document.findall(nodes.container)):
            if cell.attributes.get("hide_mode") != "input":
                continue
            del cell["hide_mode"]
            opening = '<details class="bn-code"><summary>The code</summary>'
            cell.insert(0, nodes.raw("", opening, format="html"))
            cell.insert(2, nodes.raw("", "</details>", format="html"))


class Answers(SphinxPostTransform):
    """Mark what the cell of an exercise printed."""

    default_priority = 151
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for part in self.document.findall(nodes.container):
            if part.get("nb_element") == "cell_code_output" and part.astext().startswith("✗"):
                part["classes"].append("bn-answer")


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
