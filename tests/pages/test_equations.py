"""book/equations.yml: from an equation to its code and its tests, and back from both."""

import ast
import re
from collections import defaultdict
from os.path import relpath
from pathlib import Path
from typing import Any

import pytest
from bnbook.equations import functions, is_public, locate, registry, source
from conftest import ROOT
from playwright.sync_api import Browser, Page, expect

REGISTRY = registry()
LISTED = {name for entry in REGISTRY.values() for name in functions(entry)}
API, TABLE = "book/reference/api.html", "book/reference/testing.html"
# Not displayed in a chapter: what tests themselves are made of, and the first weights of a study.
NOT_IN_A_CHAPTER = {
    "bnlib.gradcheck.gradient_error",
    "bnlib.gradcheck.numerical_gradient",
    "bnlib.experiments.networks.mlp",
    "bnlib.torch.networks.relu_mlp",
}


def test_every_equation_of_a_docstring_is_listed() -> None:
    listed = LISTED | NOT_IN_A_CHAPTER
    for file in sorted((ROOT / "bnlib").rglob("*.py")):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and is_public(node.name):
                name = f"{module}.{node.name}"
                if ".. math::" in (ast.get_docstring(node) or ""):
                    assert any(f"{one}.".startswith(f"{name}.") for one in listed), name


def test_every_public_function_says_where_its_equation_is_from() -> None:
    for name in filter(is_public, LISTED):
        file, qualified_name = locate(name)
        body = ast.parse(file.read_text()).body
        first = qualified_name.split(".")[0]
        (owner,) = [node for node in body if getattr(node, "name", "") == first]
        docstring = ast.get_docstring(owner) or ""
        assert "Source: " in docstring, name


# Read by the browser, which takes a second for what takes Beautiful Soup a minute.
READ = """async (addresses) => {
  const pages = await Promise.all(addresses.map(async (address) => {
    const html = await (await fetch(address)).text();
    return [address, new DOMParser().parseFromString(html, "text/html")];
  }));
  const links = (from) => [...from.querySelectorAll("a")].map((a) => a.getAttribute("href"));
  const read = { chapters: {}, sources: {}, functions: {}, table: {} };
  for (const [address, page] of pages) {
    for (const line of page.querySelectorAll("details.bn-source")) {
      const before = line.previousElementSibling;
      const { id } = before?.matches("div.math") ? before : line.closest("div.proof");
      read.chapters[id] = [address, line.querySelector("summary").innerText, links(line)];
    }
    read.sources[address] = [...page.querySelectorAll(".bn-listing")].map(
      (code) => [code.getAttribute("aria-label"), code.innerText]);
    for (const line of page.querySelectorAll(".bn-back")) {
      read.functions[line.closest("dl").querySelector("dt").id] = [line.innerText, links(line)];
    }
    let equation;
    for (const row of page.querySelectorAll(".bn-equations tr")) {
      if (row.cells.length === 3) equation = links(row)[0];
      (read.table[equation] ??= []).push(row.innerText);
    }
  }
  return read;
}"""


@pytest.fixture(scope="module")
def read(html: Path, browser: Browser, site: str) -> dict[str, Any]:
    """What the built pages have beside equations, functions, and in the table."""
    pages = browser.new_page()
    pages.goto(f"{site}/{TABLE}")
    chapters = [path for path in html.glob("book/*/*.html") if "bn-source" in path.read_text()]
    paths = [*chapters, html / API, html / TABLE]
    found = pages.evaluate(READ, [f"/{path.relative_to(html).as_posix()}" for path in paths])
    pages.close()
    return found


def id_of(label: str) -> str:
    return f"equation-{label}" if label.startswith("eq-") else label


def test_an_equation_shows_its_code_and_its_tests(read: dict[str, Any]) -> None:
    for label, entry in REGISTRY.items():
        _, line, addresses = read["chapters"][id_of(label)]
        for name, tests in entry["code"].items():
            module = locate(name)[0].relative_to(ROOT).with_suffix(".html").as_posix()
            assert name in line
            assert any(address.split("#")[0].endswith(module) for address in addresses), name
            assert all(locate(test)[1] in line for test in tests), name
        for name, tests in functions(entry).items():
            if is_public(name):
                assert any(address.endswith(f"api.html#{name}") for address in addresses), name
            for test in tests:
                part = f"blob/main/tests/{locate(test)[0].name}#L{source(test)[0]}"
                assert any(address.endswith(part) for address in addresses), test


def test_a_function_and_the_table_name_its_equations_and_its_tests(read: dict[str, Any]) -> None:
    held = defaultdict(set)
    for label, entry in REGISTRY.items():
        chapter, *_ = read["chapters"][id_of(label)]
        address = f"{relpath(chapter, '/book/reference')}#{id_of(label)}"
        assert any(map(is_public, functions(entry))), label
        rows = read["table"][address]
        for (name, tests), row in zip(functions(entry).items(), rows, strict=True):
            assert all(text in row for text in (name, *tests)), label
            if is_public(name):
                held[name] |= set(tests)
                assert address in read["functions"][name][1], name
    assert held.keys() == read["functions"].keys()
    for name, tests in held.items():
        assert set(re.findall(r"test_\w+\.py::\w+", read["functions"][name][0])) == tests, name


def test_a_page_shows_a_source_once_and_as_it_stands_in_the_file(read: dict[str, Any]) -> None:
    for address, sources in read["sources"].items():
        shown = dict(sources)
        assert len(shown) == len(sources), address
        for name, code in shown.items():
            assert code.strip() == source(name.removeprefix("Source of "))[1].strip()
    line, code = source("bnlib.steps.backward_closed_form")
    lines = (ROOT / "bnlib/steps.py").read_text().splitlines()
    assert lines[line - 1] == "def backward_closed_form("
    assert '"""' not in code
    assert code.endswith("return dx, dgamma, dbeta")
    test = source("test_batchnorm.py::test_gradients_by_central_differences")[1]
    assert test.startswith("@pytest.mark.parametrize(")


def test_there_and_back_by_keyboard(page: Page, site: str) -> None:
    page.goto(f"{site}/book/idea/backward.html")
    line = page.locator("#equation-eq-dbeta + details > summary")
    line.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="Source of bnlib.steps.backward")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/api.html#bnlib.steps.backward")
    back = page.locator('[id="bnlib.steps.backward"] + dd .bn-back')
    back.get_by_role("link", name="(3.1)").press("Enter")
    page.wait_for_url("**/backward.html#equation-eq-dbeta")
