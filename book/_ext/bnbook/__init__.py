"""The book's Sphinx extension, one file for each thing that it adds to the page."""

from __future__ import annotations

from typing import Any

from sphinx.application import Sphinx

from bnbook import chapters, equations, figures, interactive, live, page, publish, sheet


def setup(app: Sphinx) -> dict[str, Any]:
    for part in (chapters, equations, figures, interactive, live, page, publish, sheet):
        part.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
