"""How a chapter opens, and the list of all chapters on the landing page."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective


def setup(app: Sphinx) -> None:
    app.add_directive("chapters", Chapters)
    app.add_post_transform(Openers)


class Opening(NamedTuple):
    """What the first cell of a chapter says."""

    number: int
    part: str
    title: str
    question: str  # Markdown
    minutes: int


@cache
def openings(env: BuildEnvironment) -> dict[str, Opening]:
    """The chapters of the numbered parts, by the name of their document."""
    found: dict[str, Opening] = {}
    for part in env.external_site_map.root.subtrees:
        for name in map(str, part.items) if part.numbered else ():
            notebook = json.loads(Path(env.srcdir, f"{name}.ipynb").read_text(encoding="utf-8"))
            text = "".join(notebook["cells"][1]["source"])
            match = re.match(r"# (.+)\n\n\*\*(.+)\*\*\n.*\*Time:\* (\d+) minutes", text, re.DOTALL)
            if match is None:
                raise ValueError(f"{name} does not open with a title, a question and its time")
            title, question, minutes = match.groups()
            number = len(found) + 1
            found[name] = Opening(number, part.caption, title, question, int(minutes))
    return found


class Chapters(SphinxDirective):
    """`{chapters}`: every chapter with its question and the time it takes, part by part."""

    def run(self) -> list[nodes.Node]:
        lines: list[str] = []
        part = ""
        for name, chapter in openings(self.env).items():
            self.env.note_dependency(f"{name}.ipynb")
            if chapter.part != part:
                part = chapter.part
                lines += [f"```{{rubric}} {part}", "```", ""]
            lines += [f"{chapter.number}. [{chapter.title}](/{name}.ipynb)", ""]
            lines += [f"    {chapter.question} *{chapter.minutes} min*", ""]
        box = nodes.container(classes=["bn-chapters"])
        self.state.nested_parse(StringList(lines), self.content_offset, box)
        return [box]


class Openers(SphinxPostTransform):
    """Mark the parts of a chapter's opening, so that the style sheet can set them."""

    default_priority = 150
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        chapter = openings(self.env).get(self.env.docname)
        if chapter is None:
            return
        section = next(iter(self.document.findall(nodes.section)))
        section.insert(0, nodes.paragraph("", chapter.part, classes=["bn-kicker"]))
        section[2]["classes"].append("bn-question")
        # The cells before the first heading import and set up: together they are one line.
        cells = [one for one in section.children if "cell" in one.get("classes", ())]
        first = section.index(cells[0])
        section[3:first] = [nodes.container("", *section[3:first], classes=["bn-opener"])]
        opening = '<details class="bn-code bn-setup"><summary>Imports and settings</summary>'
        section.insert(section.index(cells[0]), nodes.raw("", opening, format="html"))
        section.insert(section.index(cells[-1]) + 1, nodes.raw("", "</details>", format="html"))
