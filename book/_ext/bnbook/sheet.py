"""The table of conventions on the cheat sheet."""

from __future__ import annotations

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from bnlib.conventions import CONVENTIONS

FRAMEWORKS = "torch", "keras", "flax", "onnx"
ROWS = {
    "default ε": "eps",
    "momentum": "momentum",
    "… weighs the value that is": "momentum_weighs",
    "running variance": "running_var",
    "channel axis": "axis",
}


def setup(app: Sphinx) -> None:
    app.add_directive("conventions-table", ConventionsTable)


class ConventionsTable(SphinxDirective):
    """`{conventions-table}`: what four frameworks mean by a layer's numbers."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency("bnlib/conventions.py")
        lines = [["framework", *FRAMEWORKS], ["---"] * (len(FRAMEWORKS) + 1)]
        for title, field in ROWS.items():
            lines.append([title, *(str(getattr(CONVENTIONS[it], field)) for it in FRAMEWORKS)])
        box = nodes.container()
        text = StringList([f"| {' | '.join(line)} |" for line in lines])
        self.state.nested_parse(text, self.content_offset, box)
        return box.children
