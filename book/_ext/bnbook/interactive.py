"""`{interactive} name`: a figure that a reader can touch, drawn by assets/interactive/name.js."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst.directives import unchanged, unchanged_required
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

SCRIPTS = Path(__file__).parents[2] / "assets" / "interactive"

STEPS = [0, 100, 200, 300, 500, 1000, 2000, 3000]  # that `rates` shows


def rates() -> list[dict[str, Any]]:
    """The sweep over learning rates: a dict for each network and depth.

    `runs` has a list for each arm (without, with BatchNorm), in it one for each rate, and in it the
    test accuracies of each seed at `steps`, in thousandths. `lost`, arranged in the same way, has
    the step at which the loss of a run overflowed, and 0 where it did not. There such a run ends.
    """
    from bnlib import experiments

    def curve(run: Any) -> list[int]:
        shown = run["step"].isin([*STEPS, run["step"].iloc[-1]])
        return [round(1000 * accuracy) for accuracy in run["test"][shown]]

    def lost(run: Any) -> int:
        return 0 if math.isfinite(run["loss"].iloc[-1]) else int(run["step"].iloc[-1])

    table, found = experiments.study("learning-rate", full=True), []
    for (net, gain, depth), part in table.groupby(["net", "gain", "depth"], sort=False):
        run = dict(list(part.groupby(["batch_norm", "lr", "seed"])))
        arms, lrs, seeds = (sorted(part[name].unique()) for name in ("batch_norm", "lr", "seed"))
        found.append(
            {
                "net": f"{net}, gain {gain:g}" if net == "sigmoid MLP" else net,
                "depth": depth,
                "rates": lrs,
                "steps": [step for step in STEPS if step <= part["steps"].iloc[0]],
                "runs": [[[curve(run[a, lr, k]) for k in seeds] for lr in lrs] for a in arms],
                "lost": [[[lost(run[a, lr, k]) for k in seeds] for lr in lrs] for a in arms],
            }
        )
    return found


# What a figure shows of the recorded experiments and benchmarks, by its name.
DATA: dict[str, Callable[[], Any]] = {"rates": rates}


def setup(app: Sphinx) -> None:
    app.add_directive("interactive", Interactive)
    app.add_css_file("interactive.css")
    app.connect("html-page-context", load_scripts)


class Interactive(SphinxDirective):
    """A numbered figure. Without a script, a reader has the text of `alt` and the caption."""

    required_arguments = 1
    option_spec = {"alt": unchanged_required, "name": unchanged}
    has_content = True  # the caption

    def run(self) -> list[nodes.Node]:
        name, alt = self.arguments[0], self.options.get("alt", "")
        if not (SCRIPTS / f"{name}.js").is_file():
            raise self.error(f"there is no script {name}.js in assets/interactive")
        if len(alt) < 20:
            raise self.error(f"the figure {name} needs an `alt` that says what it shows")
        data = ""
        if name in DATA:
            text = json.dumps(DATA[name](), separators=(",", ":"))  # numbers and names: no markup
            data = f'<script type="application/json">{text}</script>'
        html = (
            f'<div class="bn-interactive" data-interactive="{name}" role="group"'
            f' aria-label="{escape(alt)}"><p class="bn-still">{escape(alt)}</p>{data}</div>'
        )
        figure = nodes.figure("", nodes.raw("", html, format="html"))
        text = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, text)
        if text.children:
            figure += nodes.caption("", "", *text[0].children)
        self.add_name(figure)
        return [figure]


def scripts(html: str) -> list[str]:
    """The names of the scripts for the figures in a text: what all share, and one for each."""
    names = re.findall(r'data-interactive="([\w-]+)"', html)
    return ["common", "cells", *dict.fromkeys(names)] if names else []


def load_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    """Load on each page the scripts of its figures, and no other."""
    for name in scripts(context.get("body", "")):
        app.add_js_file(f"interactive/{name}.js", loading_method="defer")
