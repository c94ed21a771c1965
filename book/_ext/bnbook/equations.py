"""Equation, code and test, each with links to the others; previews of what a link leads to.

book/equations.yml says what belongs together. Under an equation, the page shows a line that opens
to the source of its functions and tests; a function on the API page names its equations and its
tests; and `{equations-and-code}` makes a table of all.
"""

from __future__ import annotations

import ast
import functools
import textwrap
from collections import defaultdict
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[3]
REGISTRY = ROOT / "book" / "equations.yml"

Entry = dict[str, dict[str, list[str]]]


def setup(app: Sphinx) -> None:
    app.add_directive("equations-and-code", EquationsAndCode)
    app.add_post_transform(LinkEquations)
    app.add_css_file("equations.css")
    app.add_css_file("previews.css")
    app.add_js_file("previews.js", loading_method="defer")


@functools.cache
def registry() -> dict[str, Entry]:
    """The functions of each equation, by its label, and the tests of each function."""
    entries = yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))
    return {label: {"also": {}, **entry} for label, entry in entries.items()}


def functions(entry: Entry) -> dict[str, list[str]]:
    """All functions of an equation, with their tests."""
    return entry["code"] | entry["also"]


def locate(name: str) -> tuple[Path, str]:
    """The file of a function, `bnlib.nn.Linear.forward`, or of a test, and its name in there."""
    if "::" in name:
        file, test = name.split("::")
        return ROOT / "tests" / file, test
    parts = name.split(".")
    for i in range(len(parts) - 1, 0, -1):
        file = ROOT.joinpath(*parts[:i]).with_suffix(".py")
        if file.is_file():
            return file, ".".join(parts[i:])
    raise LookupError(f"{REGISTRY.name}: no file has {name}")


@functools.cache
def source(name: str) -> tuple[int, str]:
    """The line on which a function or test begins, and its source without the docstring."""
    file, qualified_name = locate(name)
    text = file.read_text(encoding="utf-8")
    node: Any = ast.parse(text)
    for part in qualified_name.split("."):
        found = [child for child in node.body if getattr(child, "name", None) == part]
        if not found:
            raise LookupError(f"{REGISTRY.name}: {file.name} has no {qualified_name}")
        node = found[-1]
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    lines = text.splitlines()[first - 1 : node.end_lineno]
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        del lines[docstring.lineno - first : docstring.end_lineno - first + 1]
    return node.lineno, textwrap.dedent("\n".join(lines))


def is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


class EquationsAndCode(SphinxDirective):
    """A table of every equation that the package computes, with its functions and tests."""

    def run(self) -> list[nodes.Node]:
        group = nodes.tgroup("", *(nodes.colspec(colwidth=w) for w in (2, 4, 5)), cols=3)
        head = ["Equation", "Code", "Tests"]
        group += nodes.thead("", _row(*([nodes.paragraph(text=title)] for title in head)))
        # The rows are filled when the chapter of each equation is known.
        group += nodes.tbody("", classes=["bn-equations"])
        return [nodes.table("", group, classes=["table"])]


class LinkEquations(SphinxPostTransform):
    """Put what the registry says under equations, on the API page, and into the table."""

    default_priority = 5  # before references are resolved

    def run(self, **kwargs: Any) -> None:
        if self.app.builder.name != "html":  # a book in one piece has no pages to link to
            return
        for body in self.document.findall(nodes.tbody):
            if "bn-equations" in body["classes"]:
                for label, entry in registry().items():
                    body += self.rows(label, entry)
        for description in self.document.findall(addnodes.desc):
            names = [one for one in description[0]["ids"] if one in self.equations_by_function]
            description[-1].extend(self.back_link(name) for name in names)
        self.shown: dict[str, str] = {}  # the id of what was shown on this page, by name
        for node in list(self.document.findall(nodes.Element)):
            label = node.get("label")
            if label not in registry() or isinstance(node, addnodes.pending_xref):
                continue
            if isinstance(node, nodes.math_block):
                place = node.parent.index(node) + 1
                node.parent[place:place] = self.panel(registry()[label])
            else:  # an algorithm or a theorem: within its box
                node += self.panel(registry()[label])

    @functools.cached_property
    def equations_by_function(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for label, entry in registry().items():
            for name in functions(entry):
                found[name].append(label)
        return found

    # References. What cannot be resolved fails the build.

    def chapter(self, label: str) -> str:
        """The page on which an equation or an algorithm stands."""
        numbered = self.env.get_domain("math").equations
        if label in numbered:
            return numbered[label][0]
        return self.env.proof_list[label]["docname"]

    def reference(
        self, domain: str, kind: str, target: str, text: nodes.Element | None = None
    ) -> nodes.Element:
        return addnodes.pending_xref(
            "",
            text or nodes.inline(text=target),
            refdomain=domain,
            reftype=kind,
            reftarget=target,
            refexplicit=text is not None,
            refwarn=True,
            refdoc=self.env.docname,
        )

    def to_equation(self, label: str) -> nodes.Element:
        """(3.5), or Algorithm 2.1."""
        if label in self.env.get_domain("math").equations:
            return self.reference("math", "eq", label)
        return self.reference("prf", "ref", label)

    def to_chapter(self, label: str) -> nodes.Element:
        title = nodes.inline(text=self.env.titles[self.chapter(label)].astext())
        return self.reference("std", "doc", f"/{self.chapter(label)}", title)

    def to_function(self, name: str) -> nodes.Element:
        """To its entry on the API page; a function that is not public has none."""
        if not is_public(name):
            return nodes.literal(text=name)
        return self.reference("py", "obj", name, nodes.literal(text=name))

    def to_test(self, name: str, text: str = "") -> nodes.Element:
        """To its line in the repository."""
        options = self.config.html_theme_options
        address = f"{options['repository_url']}/blob/{options['repository_branch']}"
        file = locate(name)[0].relative_to(ROOT).as_posix()
        link = nodes.reference(refuri=f"{address}/{file}#L{source(name)[0]}")
        link += nodes.inline(text=text) if text else nodes.literal(text=name)
        return link

    def to_module(self, name: str) -> nodes.Element:
        """To the source of the whole module."""
        file, qualified_name = locate(name)
        page = "_modules/" + file.relative_to(ROOT).with_suffix("").as_posix()
        address = self.app.builder.get_relative_uri(self.env.docname, page)
        if is_public(name) and "." not in qualified_name:
            address += f"#{qualified_name}"
        return nodes.reference("", "", nodes.inline(text="whole module"), refuri=address)

    # What is shown.

    def rows(self, label: str, entry: Entry) -> list[nodes.row]:
        """The equation, and beside it a row for each function."""
        rows = [
            _row(_lines(self.to_function(name)), _lines(*map(self.to_test, tests)))
            for name, tests in functions(entry).items()
        ]
        equation = _lines(self.to_equation(label), self.to_chapter(label))
        rows[0].insert(0, nodes.entry("", *equation, morerows=len(rows) - 1))
        return rows

    def back_link(self, name: str) -> nodes.paragraph:
        """Equation (3.5) in The backward pass · Tests: test_steps.py::…"""
        labels = self.equations_by_function[name]
        line = nodes.paragraph("", classes=["bn-back"])
        for i, label in enumerate(labels):
            line += [nodes.Text(", " if i else "In the book: "), self.to_equation(label)]
            if i == len(labels) - 1 or self.chapter(labels[i + 1]) != self.chapter(label):
                line += [nodes.Text(" in "), self.to_chapter(label)]
        line += self.held_by(test for one in labels for test in functions(registry()[one])[name])
        return line

    def held_by(self, tests: Iterable[str]) -> list[nodes.Node]:
        """. Tests: test_steps.py::…"""
        found: list[nodes.Node] = []
        for test in dict.fromkeys(tests):
            found += [nodes.Text(", " if found else ". Tests: "), self.to_test(test)]
        return [*found, nodes.Text(".")]

    def panel(self, entry: Entry) -> list[nodes.Node]:
        """A line that opens to the source of the functions, each with that of its tests."""
        names = (test.split("::")[1] for tests in entry["code"].values() for test in tests)
        line = f"<span>In the package: {_codes(entry['code'])}</span>"
        line += f" <span>Test: {_codes(dict.fromkeys(names))}</span>"
        panel = [_raw(f'<details class="bn-source"><summary>{line}</summary>')]
        for name, tests in entry["code"].items():
            ways = [self.to_module(name)]
            if is_public(name):
                ways.insert(0, self.reference("py", "obj", name, nodes.inline(text="API")))
            panel += self.listing(name, ways)
            for test in tests:
                panel += self.listing(test, [self.to_test(test, "in the repository")])
        for name, tests in entry["also"].items():
            also = [nodes.Text("The same in "), self.to_function(name), *self.held_by(tests)]
            panel += [nodes.paragraph("", "", *also)]
        return [*panel, _raw("</details>")]

    def listing(self, name: str, ways: list[nodes.Element]) -> list[nodes.Node]:
        """The name with links, and the source, unless this page has shown it before."""
        head = nodes.paragraph("", "", nodes.literal(text=name))
        for way in ways:
            head += [nodes.Text(" · "), way]
        if name in self.shown:
            address = f"#{self.shown[name]}"
            above = nodes.inline(text="source, shown above")
            head += [nodes.Text(" · "), nodes.reference("", "", above, refuri=address)]
            return [head]
        self.shown[name] = nodes.make_id(f"source-{name}")
        head["ids"].append(self.shown[name])
        text = source(name)[1]
        code = nodes.literal_block(text, text, language="python")
        label = escape(f"Source of {name}")
        box = f'<div class="bn-listing" tabindex="0" role="group" aria-label="{label}">'
        return [head, _raw(box), code, _raw("</div>")]


def _row(*cells: list[nodes.Node]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", *cell) for cell in cells))


def _lines(*links: nodes.Node) -> list[nodes.Node]:
    return [nodes.paragraph("", "", link) for link in links]


def _codes(names: Iterable[str]) -> str:
    return ", ".join(f"<code>{escape(name)}</code>" for name in names)


def _raw(html: str) -> nodes.raw:
    return nodes.raw("", html, format="html")
