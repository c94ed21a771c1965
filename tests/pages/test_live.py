"""Live code: what is served is what was published, and the cells of a page run in it."""

import re
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from xml.etree import ElementTree

import live
import matplotlib.pyplot as plt
import nbformat
import notebooks
import pytest
from bnbook import live as extension
from bnlive.plan import needed, read
from bnlive.run import CHARACTERS, execute, prepare, run
from conftest import ROOT
from nbformat import NotebookNode
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from .conftest import Quiet

STARTS = 300_000  # ms that Python may take to start, with all cells of a page, on a busy machine

expect.set_options(timeout=60_000)


def live_cells(notebook: Path) -> list[NotebookNode]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell for cell in cells if "live" in cell.metadata.get("tags", [])]


def stored_text(cell: NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def stored_figures(cell: NotebookNode) -> int:
    return sum("image/svg+xml" in output.get("data", {}) for output in cell.outputs)


# --- Gathering ---------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own for tools/live.py, whose gathering takes no time."""
    shutil.copytree(ROOT / "web", tmp_path / "web", ignore=shutil.ignore_patterns("node_modules"))
    monkeypatch.setattr(live, "WEB", tmp_path / "web")
    monkeypatch.setattr(live, "LIVE", tmp_path / ".live")
    monkeypatch.setattr(live, "npm", lambda: "npm")
    monkeypatch.setattr(live, "gather", lambda folder: folder.mkdir())
    return tmp_path


def test_it_is_gathered_once(project: Path) -> None:
    live.main()
    (project / ".live" / "kept").touch()
    live.main()
    assert (project / ".live" / "kept").exists()


@pytest.mark.parametrize("name", live.SOURCES)
def test_it_is_gathered_again_when_a_source_changed(project: Path, name: str) -> None:
    live.main()
    (project / ".live" / "old").touch()
    with (project / "web" / name).open("a") as file:
        file.write("\n")
    live.main()
    assert not (project / ".live" / "old").exists()


def test_what_was_half_gathered_is_not_used(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(folder: Path) -> None:
        folder.mkdir()
        (folder / "half a file").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(live, "gather", killed)
        with pytest.raises(KeyboardInterrupt):
            live.main()
    assert live.stamp() == ""
    live.main()
    assert not (project / ".live" / "half a file").exists()


def test_without_npm_one_line_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(live, "LIVE", project / ".live")
    monkeypatch.setenv("PATH", str(project))
    live.main()
    said = capsys.readouterr().out
    assert said.startswith("The book will be built without live code: there is no npm here.")
    assert said.count("\n") == 1
    assert not (project / ".live").exists()


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm here")
def test_without_network_one_line_says_so(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")  # nothing listens there
    monkeypatch.setenv("npm_config_cache", str(project / "cache"))
    with pytest.raises(live.Missing, match=r"^what it needs could not be fetched\. .*REFUSED$"):
        live.fetch(["npm", "ci", "--fetch-retries=0"])


@pytest.mark.parametrize(
    "program", ["npm error code EINTEGRITY", "THESE PACKAGES DO NOT MATCH THE HASHES"]
)
def test_a_package_with_a_wrong_checksum_is_an_error(program: str) -> None:
    command = [sys.executable, "-c", f"import sys; sys.exit({program!r})"]
    with pytest.raises(SystemExit, match="not the one that was published, and is not used"):
        live.fetch(command)


def test_a_wheel_with_a_wrong_checksum_is_an_error(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "carrier.whl", "w") as archive:
        archive.writestr("somewhere/numpy.whl", "not NumPy")
    packages = {"numpy": {"file_name": "numpy.whl", "sha256": "0" * 64}}
    with pytest.raises(SystemExit, match=r"^numpy\.whl is not the file that Pyodide published"):
        live.unpack(tmp_path / "carrier.whl", packages, tmp_path)
    assert not (tmp_path / "numpy.whl").exists()


def test_every_package_is_pinned_by_its_checksum_and_by_no_host() -> None:
    lock = (ROOT / "web" / "package-lock.json").read_text()
    assert "resolved" not in lock
    assert lock.count('"integrity": "sha512-') == lock.count('"node_modules/')
    assert "--hash=sha256:" in (ROOT / "web" / "wheels.txt").read_text()


# --- Python's side, outside the page --------------------------------------------------------


class Received(list[tuple[str, str]]):
    """The output of a cell, pieces of one kind put together."""

    pieces = 0

    def __call__(self, kind: str, text: str) -> None:
        self.pieces += 1
        if self and self[-1][0] == kind:
            text = self.pop()[1] + text
        self.append((kind, text))


def test_a_cell_needs_those_above_that_make_or_change_its_names() -> None:
    sources = ["import numpy as np", "a = [1]", "b = 2", "a.append(b)", "c = 3", "print(a)"]
    assert needed(sources, 5) == [1, 2, 3, 5]
    assert needed(sources, 4) == [4]
    assert needed(["x = 1", "x = 2", "y = x", "x += 1", "x"], 4) == [1, 3, 4]
    assert needed(["for a in b:\n    c = a", "c"], 1) == [0, 1]


def test_a_cell_needs_those_that_draw_from_its_random_generator_before_it() -> None:
    sources = [
        "import numpy as np\nrng = np.random.default_rng(0)",
        "def draw():\n    return rng.normal()",
        "a = draw()",
        "b = [rng.normal() for _ in range(3)]",
        "c = 1",
        "d = draw()",
    ]
    assert needed(sources, 5) == [0, 1, 2, 3, 5]


@pytest.mark.parametrize("notebook", notebooks.chapters(), ids=lambda path: path.stem)
def test_a_live_cell_draws_from_a_generator_of_its_own(notebook: Path) -> None:
    """So that what it prints depends on no cell that does not run in the page."""
    for cell in live_cells(notebook):
        assert "rng" not in read(cell.source).uses, cell.source


def ran(sources: list[str], index: int, everything: bool = False) -> tuple[list[int], str]:
    """The cells that ran for a cell, as in the page, and what it gave."""
    done = []
    for cell in prepare(sources, index, everything):
        got = Received()
        done.append(cell)
        if not run(sources, cell, got):
            break
    return done, "".join(text for _, text in got)


@pytest.fixture
def fresh() -> Iterator[None]:
    """A namespace without what another test left there."""
    prepare([""], 0, True)
    yield
    prepare([""], 0, True)


def test_what_ran_as_it_stands_does_not_run_again(fresh: None) -> None:
    sources = ["x = 1", "y = x + 1", "z = x", "print(y)"]
    assert ran(sources, 3) == ([0, 1, 3], "2\n")
    assert ran(sources, 3) == ([3], "2\n")
    assert ran(sources, 2) == ([2], "")
    sources[1] = "y = x + 2"
    assert ran(sources, 3) == ([1, 3], "3\n")
    assert ran(sources, 1) == ([1], "")
    assert ran(sources, 3) == ([3], "3\n")
    assert ran(["x = 5", *sources[1:]], 1) == ([0, 1], "")
    assert ran(sources, 3) == ([0, 1, 3], "3\n")  # y was made of another x


@pytest.mark.parametrize(
    ("sources", "before"),
    [
        (["x = 1", "print(x)"], (0, "x = 5\nraise ValueError")),
        (["x = 1", "print(x)"], (0, "x = 5")),
        (["x = 1", "x += 1", "print(x)"], (1, "x += 5\nraise ValueError")),
        (["y = 2", "x = 1", "print(y)"], (1, "y = x = 5")),
        (["x = [1]", "x.append(2)", "print(x)"], (1, "x.append(2)")),
        (["x = [1]", "print(x)"], (1, "x.append(2)")),
        (["x = 1", "print(x)", "x = 5"], (2, "x = 5")),
        (["x = 1", "def f():\n    return x", "print(f())"], (0, "x = 5\nraise ValueError")),
        (["import math", "print(math.pi)"], (0, "import math\nmath = None")),
        (["print(np.pi)"], (0, "np = None")),
        (
            ["import numpy as np", "rng = np.random.default_rng(0)", "print(rng.normal())"],
            (2, "rng.normal()\nraise ValueError"),
        ),
    ],
)
def test_what_ran_before_changes_no_result(
    fresh: None, sources: list[str], before: tuple[int, str]
) -> None:
    """Nor does it when the reader brings the book's code back."""
    asked = next(index for index, source in enumerate(sources) if "print" in source)
    expected = ran(sources, asked, everything=True)[1]
    assert "Error" not in expected
    assert ran(sources, asked)[1] == expected
    index, edit = before
    ran([*sources[:index], edit, *sources[index + 1 :]], index)
    assert ran(sources, asked)[1] == expected
    assert ran(sources, asked)[1] == expected


def test_a_name_that_no_cell_makes_any_more_is_gone(fresh: None) -> None:
    assert ran(["left = 1", ""], 0) == ([0], "")
    assert "NameError: name 'left' is not defined" in ran(["", "print(left)"], 1)[1]


def test_all_above_run_from_the_beginning(fresh: None) -> None:
    """For what the code does not show: here, that a function changes a list."""
    sources = ["found = []", "def add():\n    found.append(1)", "add()", "print(found)"]
    ran(sources, 2)
    assert ran(sources, 3, everything=True) == ([0, 1, 2, 3], "[1]\n")
    ran(["", "y = 2"], 1)
    ran(["", "y = 2"], 0, everything=True)
    assert ran(["", "y = 2", "print(y)"], 2) == ([1, 2], "2\n")
    assert ran(["globals()['hidden'] = 1", ""], 0) == ([0], "")
    assert "NameError" in ran(["", "hidden"], 1, everything=True)[1]


def test_code_that_is_not_python_needs_nothing() -> None:
    assert needed(["a = 1", "a +"], 1) == [1]


def test_output_comes_in_order_and_ends_with_the_last_value() -> None:
    got = Received()
    assert execute("import sys\nprint(1)\nprint(2, file=sys.stderr)\nx = 3\nx", "cell 1", got)
    assert got == [("stdout", "1\n"), ("stderr", "2\n"), ("result", "3")]
    got.clear()
    assert execute("x;", "cell 2", got)
    assert execute("None", "cell 3", got)
    assert not got


def test_an_error_is_shown_as_python_shows_it() -> None:
    got = Received()
    assert not execute("def f(x):\n    return 1 / x\n\n\nf(0)", "cell 1", got)
    assert got == [
        (
            "error",
            'Traceback (most recent call last):\n  File "cell 1", line 5, in <module>\n    f(0)\n'
            '  File "cell 1", line 2, in f\n    return 1 / x\n'
            + "           ~~^~~\n" * (sys.version_info >= (3, 11))
            + "ZeroDivisionError: division by zero\n",
        )
    ]
    got.clear()
    assert not execute("a = (", "cell 2", got)
    assert got[0][1].startswith('  File "cell 2", line 1\n    a = (\n        ^\nSyntaxError: ')
    got.clear()
    assert not execute("import sys\nsys.exit()", "cell 3", got)
    assert got[0][1].endswith("SystemExit\n")


def test_a_loop_that_prints_does_not_flood_the_page() -> None:
    got = Received()
    execute("for i in range(100_000):\n    print(i)", "cell 1", got)
    [(_, text)] = got
    assert CHARACTERS < len(text) < CHARACTERS + 100
    assert text.endswith("the rest is not shown.\n")
    assert got.pieces < 1000


@pytest.mark.parametrize(
    "notebook",
    [path for path in notebooks.chapters() if path.parent.name in ("mnist", "speed", "why")],
    ids=lambda path: path.stem,
)
def test_the_stubs_need_numpy_alone(notebook: Path) -> None:
    """What needs no browser: the cells run by themselves and print what the book stores."""
    cells = live_cells(notebook)
    assert cells
    sources = [cell.source for cell in cells]
    for index, cell in enumerate(cells):
        prepare(sources, 0, True)  # takes away what the cells before left there
        assert ran(sources, index)[1] == stored_text(cell)


@pytest.mark.parametrize("notebook", notebooks.chapters(), ids=lambda path: path.stem)
def test_every_stub_of_an_exercise_is_live(notebook: Path) -> None:
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code" and "raise NotImplementedError" in cell.source:
            assert "live" in cell.metadata.get("tags", []), cell.source


# --- The page ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(html: Path) -> None:
    if not (html / "_static" / "live").is_dir():
        pytest.skip("the book was built without live code: see what tools/live.py says")


def gone(page: Page) -> None:
    """Wait until no worker is left; a test that hears of none in a minute fails."""
    for _ in range(600):
        if not page.workers:
            return
        page.wait_for_timeout(100)
    raise AssertionError("a worker is still there")


def cell(page: Page, number: int) -> Locator:
    return page.locator(".cell.tag_live").nth(number - 1)


def test_without_live_code_a_page_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[str] = []
    app = SimpleNamespace(connect=lambda event, handler: connected.append(event))
    monkeypatch.setattr(extension, "LIVE", ROOT / "nowhere")
    extension.setup(app)
    assert not connected


def test_what_the_page_s_python_imports_is_the_same_archive_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "live").mkdir()
    monkeypatch.setattr(extension, "LIVE", tmp_path / "live")
    archives = []
    for name in "ab":
        app = SimpleNamespace(outdir=tmp_path / name, builder=SimpleNamespace(name="html"))
        extension.copy_files(app)
        archives.append(tmp_path / name / "_static" / "live" / "bnlib.zip")
    assert archives[0].read_bytes() == archives[1].read_bytes()
    names = zipfile.ZipFile(archives[0]).namelist()
    assert {"bnlib/__init__.py", "bnlive/run.py", "bnbook/svg.py"} <= set(names)
    assert not any("torch" in name or "records" in name for name in names)


def test_nothing_is_loaded_before_the_reader_asks(served: None, page: Page, site: str) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{site}/book/idea/transform.html", wait_until="load")
    expect(cell(page, 3).get_by_role("button", name="Run, cell 3", exact=True)).to_be_visible()
    assert len(page.locator(".bn-live").all()) == len(
        live_cells(ROOT / "book" / "idea" / "transform.ipynb")
    )
    assert not [address for address in asked if "/live/" in address or "worker" in address]


def test_a_page_without_live_cells_loads_no_script_for_them(html: Path) -> None:
    assert "live.js" not in (html / "book" / "index.html").read_text()


def test_a_book_opened_from_a_file_says_how_code_can_run(browser: Browser, html: Path) -> None:
    page = browser.new_page()
    page.goto((html / "book" / "idea" / "transform.html").as_uri(), wait_until="load")
    word = page.locator(".bn-live")
    expect(word).to_have_text(re.compile("^Opened from a file, code cannot run"))
    expect(word).to_be_visible()
    assert not word.locator("button").count()
    page.close()


LIVE = [path for path in notebooks.chapters() if live_cells(path)]
WHY = ROOT / "book" / "idea" / "why.ipynb"
FIGURES = """(cell) => [...cell.querySelectorAll(".cell_output .bn-figure > svg")].map(
  (svg) => [...svg.querySelectorAll("text")].map((text) => text.textContent)
    .filter((text) => /[a-z]/i.test(text)).join(" "))"""
ASK = """([sources, index]) => new Promise((resolve, reject) => {
  const found = sources.map(() => []);
  worker.onmessage = ({ data }) => {
    if (data.type === "output") found[data.index].push([data.kind, data.text]);
    if (data.type === "done") resolve(found);
    if (data.type === "failed" || data.type === "refused") reject(new Error(data.text));
  };
  worker.postMessage({ sources, index, all: true });
})"""
Pieces = list[list[tuple[str, str]]]  # of each cell, kind and text


@pytest.fixture(scope="module")
def python(served: None, browser: Browser, site: str) -> Iterator[Callable[[list[str]], Pieces]]:
    """The page's Python, started once: it runs the cells of a chapter from the beginning."""
    page = browser.new_page()
    page.set_default_timeout(STARTS)
    page.goto(f"{site}/book/index.html")
    page.evaluate(
        "globalThis.worker = new Worker('/_static/live-worker.js', "
        "{ type: 'module', name: 'default' })"
    )
    yield lambda sources: page.evaluate(ASK, [sources, len(sources) - 1])
    page.close()


@pytest.mark.parametrize("notebook", LIVE, ids=lambda path: path.stem)
def test_live_cells_give_what_the_book_stores(
    notebook: Path, python: Callable[[list[str]], Pieces], here: Pieces
) -> None:
    """All live cells of a chapter, from the first to the last: texts, and those in figures."""
    cells = live_cells(notebook)
    for stored, there, out in zip(cells, python([c.source for c in cells]), here, strict=True):
        assert text_of(there) == text_of(out), stored.source
        assert figures_of(there) == figures_of(out), stored.source
        assert len(figures_of(there)) == stored_figures(stored)
        if "nbval-ignore-output" not in stored.metadata.tags:  # else of other data than the book's
            # The page has no torch: autograd, a witness of the backward pass, is not heard.
            expected = re.sub(r"   autograd \S+", "", stored_text(stored))
            assert text_of(there) == without_rounding(expected), stored.source
            svgs = [
                o.data["image/svg+xml"]
                for o in stored.outputs
                if "image/svg+xml" in o.get("data", {})
            ]
            assert figures_of(there) == [words(svg) for svg in svgs], stored.source


@pytest.mark.parametrize("notebook", [WHY], ids=["why"])
def test_the_page_shows_what_its_cells_give(
    served: None, page: Page, site: str, notebook: Path, here: Pieces
) -> None:
    cells = live_cells(notebook)
    page.goto(f"{site}/book/{notebook.parent.name}/{notebook.stem}.html")
    drawn = [cell(page, number).evaluate(FIGURES) for number in range(1, len(cells) + 1)]
    last = cell(page, len(cells))
    last.get_by_role("button", name="Edit").click()
    last.get_by_role("button", name="Run all above").click()
    expect(last.get_by_role("status")).to_contain_text(
        f", after {len(cells) - 1} cell", timeout=STARTS
    )
    assert any(drawn)
    for number, (stored, figures, out) in enumerate(zip(cells, drawn, here, strict=True), start=1):
        output = cell(page, number).locator(".cell_output")
        printed = "".join(output.locator(".output pre").all_text_contents())
        assert without_rounding(printed) == text_of(out), stored.source
        if "nbval-ignore-output" in stored.metadata.tags:  # of other data than the book's
            figures = figures_of(out)
        assert cell(page, number).evaluate(FIGURES) == figures, stored.source


@pytest.fixture
def here(notebook: Path, fresh: None, monkeypatch: pytest.MonkeyPatch) -> Pieces:
    """What the live cells of a chapter give outside the page, with the page's data."""
    monkeypatch.setenv("BNLIB_DATA", "embedded")
    sources = [cell.source for cell in live_cells(notebook)]
    found: Pieces = [[] for _ in sources]
    with plt.rc_context({"backend": "module://bnlive.backend"}):
        for index in prepare(sources, len(sources) - 1, True):
            assert run(sources, index, lambda *piece: found[index].append(piece))  # noqa: B023
    return found


def text_of(pieces: list[tuple[str, str]]) -> str:
    return without_rounding("".join(text for kind, text in pieces if kind != "figure"))


def figures_of(pieces: list[tuple[str, str]]) -> list[str]:
    return [words(text) for kind, text in pieces if kind == "figure"]


def words(figure: str) -> str:
    """The texts in a figure, without the numbers at its axes: each Matplotlib chooses its own."""
    parts = ElementTree.fromstring(figure).iter("{http://www.w3.org/2000/svg}text")
    texts = ("".join(part.itertext()) for part in parts)
    return " ".join(text for text in texts if re.search("[a-z]", text, re.IGNORECASE))


def without_rounding(text: str) -> str:
    """As nbval compares: errors of rounding differ from machine to machine."""
    return re.sub(r"\b(\d\.\de-(0[7-9]|1\d)|0\.0e\+00)\b", "ROUNDING", text)


def open_editor(cell: Locator) -> Locator:
    cell.get_by_role("button", name="Edit").press("Enter")
    editor = cell.get_by_role("textbox", name="Code of cell")
    expect(editor).to_be_focused()
    return editor


def test_an_exercise_is_solved_by_keyboard_alone(served: None, page: Page, site: str) -> None:
    page.goto(f"{site}/book/idea/transform.html")
    stub = page.locator(".cell.tag_live", has_text='check("normalize"')
    editor = open_editor(stub)
    page.keyboard.press("Control+Home")
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Home")
    page.keyboard.press("Shift+End")
    page.keyboard.type("return (x - x.mean()) / np.sqrt(x.var(axis=0) + eps)")
    page.keyboard.press("Shift+Enter")
    answer = stub.locator(".cell_output")
    expect(answer).to_contain_text("the mean of every column of x_hat must be 0", timeout=STARTS)
    for _ in ")) / np.sqrt(x.var(axis=0) + eps)":
        page.keyboard.press("ArrowLeft")
    page.keyboard.type("axis=0")
    page.keyboard.press("Control+Enter")
    expect(answer).to_have_text("✓ normalize: right, on 3 random inputs.")
    page.keyboard.press("Tab")
    expect(editor).not_to_be_focused()


def test_a_cell_that_is_run_again_while_it_runs_runs_as_it_stands_then(
    served: None, page: Page, site: str
) -> None:
    page.goto(f"{site}/book/idea/transform.html")
    third = cell(page, 3)
    open_editor(third)
    page.keyboard.press("Control+a")
    page.keyboard.type("import time; print('once'); time.sleep(3)")
    page.keyboard.press("Shift+Enter")
    output = third.locator(".cell_output")
    expect(output).to_have_text("once", timeout=STARTS)
    page.keyboard.press("Control+a")
    page.keyboard.type("print('twice')")
    page.keyboard.press("Shift+Enter")
    expect(third.get_by_role("status")).to_have_text("Changed, runs again after this run")
    expect(output).to_have_text("twice")


HARD = """\
import numpy as np, bnlib
rng = np.random.default_rng(0)
x_hat = lambda v: (v - v.mean((0, 2), keepdims=True)) / np.sqrt(v.var((0, 2), keepdims=True) + 1e-5)
off = lambda got, want: abs(got - want).max() / abs(want).max()
error = lambda x: off(bnlib.batch_norm_train(x)[0], x_hat(x.astype(np.float64)))
two = [np.where(rng.random((m, 3, 64)) < 0.4, *rng.normal(0, 3, 2)) for m in range(2, 400, 9)]
long = [np.tile(np.repeat(rng.normal(0, 3, 2), 256), (2, 5, k)) for k in range(1, 9)]
first = [np.where(np.arange(64) + 64 * np.arange(len(x))[:, None, None] == 0, 1e6, x) for x in two]
print("worst:", max(error(x.astype(np.float32)) for x in two + long + first))
"""


def test_the_promise_holds_in_the_page(served: None, page: Page, site: str) -> None:
    """Of two values, repeated ones and a first one far off, by the NumPy of the browser."""
    page.goto(f"{site}/book/idea/transform.html")
    third = cell(page, 3)
    open_editor(third)
    page.keyboard.press("Control+a")
    page.keyboard.insert_text(HARD)
    page.keyboard.press("Shift+Enter")
    output = third.locator(".cell_output")
    expect(output).to_contain_text("worst:", timeout=STARTS)
    assert float((output.text_content() or "").removeprefix("worst:")) < 1e-6


def test_after_an_endless_loop_and_an_error_above_the_page_goes_on(
    served: None, page: Page, site: str
) -> None:
    page.goto(f"{site}/book/idea/transform.html")
    first, third, fifth = cell(page, 1), cell(page, 3), cell(page, 5)
    output = third.locator(".cell_output")
    printed = output.locator("pre").text_content()
    open_editor(third)
    page.keyboard.press("Control+a")
    page.keyboard.type("print('once')\nwhile True:\npass")
    page.keyboard.press("Shift+Enter")
    expect(output).to_have_text("once", timeout=STARTS)
    third.get_by_role("button", name="Stop").click()
    expect(output).to_contain_text("KeyboardInterrupt")
    expect(third.get_by_role("status")).to_contain_text("Stopped")
    third.get_by_role("button", name="Reset").click()
    assert output.locator("pre").text_content() == printed

    gone(page)  # and there is none until the reader runs a cell again
    imports = page.locator(".bn-setup > summary")
    imports.press("Enter")
    open_editor(first)
    page.keyboard.press("Control+End")
    page.keyboard.type("\n1 / 0")
    imports.press("Enter")
    fifth.get_by_role("button", name="Run, cell 5").click()  # needs cells 1, 3 and 4
    status = fifth.get_by_role("status")
    expect(status).to_have_text("Not run: cell 1 ended with an error", timeout=STARTS)
    error = first.locator(".bn-live-error")
    expect(error).to_contain_text(re.compile(r'File "cell 1", line \d, in <module>'))
    expect(error).to_contain_text("ZeroDivisionError: division by zero")
    expect(error).to_be_visible()  # the box that it is in has opened

    first.get_by_role("button", name="Reset").click()
    expect(error).to_have_count(0)
    fifth.get_by_role("button", name="Run, cell 5").click()
    expect(status).to_contain_text("after 3 cells above")
    expect(output.locator("pre")).to_have_text(printed)
    fifth.get_by_role("button", name="Run, cell 5").click()
    expect(status).to_have_text(re.compile(r"^Ran in [\d.]+ m?s$"))  # they ran already
    assert len(page.workers) == 1  # the one with the loop is gone


def test_what_changed_runs_again_and_a_claim_that_fails_loses_its_tick(
    served: None, page: Page, site: str
) -> None:
    page.goto(f"{site}/book/idea/transform.html")
    fourth, fifth, claim = cell(page, 4), cell(page, 5), cell(page, 6)
    fifth.get_by_role("button", name="Run, cell 5").click()
    status = fifth.get_by_role("status")
    expect(status).to_contain_text("after 3 cells above", timeout=STARTS)
    open_editor(fourth)
    page.keyboard.press("Control+End")
    page.keyboard.type("\ny = y + 1")
    expect(fourth.get_by_role("status")).to_have_text("Changed, not run yet")
    expect(fourth.locator(".bn-live-old")).to_have_count(1)
    fifth.get_by_role("button", name="Run, cell 5").click()
    expect(status).to_contain_text("after 1 cell above")
    expect(fifth.locator(".cell_output pre")).to_contain_text("[1. 1. 1.]")

    summary = claim.locator("summary")
    expect(summary).to_have_text(re.compile("^✓ "))
    summary.press("Enter")
    open_editor(claim)
    page.keyboard.press("Control+Home")
    page.keyboard.type("assert False\n")
    expect(summary).to_have_text(re.compile("^[?] "))  # its assertion has not run
    page.keyboard.press("Control+Enter")
    expect(summary).to_have_text(re.compile("^✗ "))
    expect(claim.locator(".bn-live-old")).to_have_count(0)
    claim.get_by_role("button", name="Reset").click()
    expect(summary).to_have_text(re.compile("^✓ "))


def test_changes_survive_a_reload_until_reset(served: None, page: Page, site: str) -> None:
    page.goto(f"{site}/book/idea/transform.html")
    third = cell(page, 3)
    code = third.locator("pre").first
    before = code.text_content()
    open_editor(third)
    page.keyboard.press("Control+Home")
    page.keyboard.type("# a/b\n")  # the theme's key for search is a character here
    page.reload()
    expect(code).to_have_text(f"# a/b\n{before}")
    third.get_by_role("button", name="Reset").click()
    page.reload()
    assert code.text_content() == before
    expect(third.get_by_role("button", name="Reset")).to_be_hidden()


def test_a_reader_who_denies_storage_can_change_code(
    served: None, context: BrowserContext, page: Page, site: str
) -> None:
    context.add_init_script(
        """for (const name of ["getItem", "setItem"]) {
            const real = Storage.prototype[name];
            Storage.prototype[name] = function (key, ...rest) {
                if (key.startsWith("live ")) throw new Error("denied");
                return real.call(this, key, ...rest);
            };
        }"""
    )
    page.goto(f"{site}/book/idea/transform.html")
    third = cell(page, 3)
    open_editor(third)
    page.keyboard.type("# changed")
    expect(third.get_by_role("button", name="Reset")).to_be_visible()


def test_two_tabs_keep_each_other_s_changes(
    served: None, context: BrowserContext, site: str
) -> None:
    tabs = [context.new_page() for _ in range(2)]
    for tab in tabs:
        tab.goto(f"{site}/book/idea/transform.html")
    for number, tab in enumerate(tabs, start=3):
        open_editor(cell(tab, number))
        tab.keyboard.press("Control+Home")
        tab.keyboard.type(f"# {number}\n")
    for tab in tabs:
        tab.reload()
        for number in 3, 4:
            expect(cell(tab, number).locator("pre").first).to_contain_text(f"# {number}\n")
    cell(tabs[0], 3).get_by_role("button", name="Reset").click()
    tabs[1].reload()
    expect(cell(tabs[1], 3).get_by_role("button", name="Reset")).to_be_hidden()
    expect(cell(tabs[1], 4).get_by_role("button", name="Reset")).to_be_visible()


def edit(cell: Locator, code: str) -> None:
    """Put code in the place of a cell's."""
    open_editor(cell)
    cell.page.keyboard.press("Control+a")
    cell.page.keyboard.insert_text(code)


def test_what_a_failed_run_left_there_is_not_used(served: None, page: Page, site: str) -> None:
    page.goto(f"{site}/book/idea/transform.html")
    third, fourth, fifth = cell(page, 3), cell(page, 4), cell(page, 5)
    run_it = fifth.get_by_role("button", name="Run, cell 5")
    run_it.click()
    status = fifth.get_by_role("status")
    expect(status).to_contain_text("after 3 cells above", timeout=STARTS)
    printed = fifth.locator(".cell_output pre").text_content()
    edit(fourth, "y = 5\nraise ValueError")
    page.keyboard.press("Shift+Enter")
    expect(fourth.get_by_role("status")).to_have_text("Ended with an error")
    fourth.get_by_role("button", name="Reset").click()
    run_it.click()
    expect(status).to_contain_text("after 1 cell above")
    assert fifth.locator(".cell_output pre").text_content() == printed
    assert third.get_by_role("status").text_content() != ""


def test_when_python_breaks_down_no_old_output_stands_for_new_code(
    served: None, browser: Browser, site: str
) -> None:
    page = browser.new_page()
    page.goto(f"{site}/book/idea/transform.html")
    claim = cell(page, 6)
    summary = claim.locator("summary")
    summary.press("Enter")
    edit(claim, "import os\nos.abort()")
    page.keyboard.press("Shift+Enter")
    status = claim.get_by_role("status")
    expect(status).to_contain_text("Python broke down: ", timeout=STARTS)
    expect(status).to_contain_text("Run tries again.")
    expect(claim.locator(".cell_output")).to_contain_text("Python broke down: ")
    expect(summary).to_have_text(re.compile("^✗ "))
    claim.get_by_role("button", name="Reset").click()
    expect(summary).to_have_text(re.compile("^✓ "))
    claim.get_by_role("button", name="Run, cell 6").click()
    expect(status).to_contain_text("Ran in", timeout=STARTS)
    page.close()


def test_a_carriage_return_goes_back_to_the_beginning_of_the_line(
    served: None, page: Page, site: str
) -> None:
    page.goto(f"{site}/book/idea/transform.html")
    third = cell(page, 3)
    edit(
        third,
        "for i in range(3):\n"
        "    print(f'\\r{10 - i} left', end='', flush=True)\n"
        "print('\\nabc\\rd', end='\\r', flush=True)\n"
        "print('ef', 'end\\r', sep='\\n')",
    )
    page.keyboard.press("Shift+Enter")
    expect(third.get_by_role("status")).to_contain_text("Ran in", timeout=STARTS)
    assert third.locator(".cell_output pre").text_content() == "8 leftt\nefc\nend\n"


# --- Where the server, the network or the reader is in the way ----------------------------------


class Faulty(Quiet):
    """A server that does to a file what `faults` says, by the end of its name."""

    faults: ClassVar[dict[str, str]] = {}
    held = threading.Event()  # until then a stalled file does not come
    # As a stock nginx has them; of the others it says nothing.
    known = (".html", ".css", ".js", ".json", ".svg", ".png")

    def guess_type(self, path: str) -> str:
        kind = super().guess_type(path)
        return kind if path.endswith(self.known) else "application/octet-stream"

    def do_GET(self) -> None:
        fault = next((self.faults[end] for end in self.faults if self.path.endswith(end)), None)
        if fault == "missing":
            self.send_error(404)
        elif fault in ("cut off", "spoiled"):
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if fault == "cut off" else content[::-1])
        elif fault == "another file":
            self.path = "/index.html"
            super().do_GET()
        else:
            if fault == "stalled":
                self.held.wait(60)
            super().do_GET()


@pytest.fixture
def faulty(html: Path, served: None) -> Iterator[str]:
    """The address of a server with faults."""
    Faulty.faults.clear()
    Faulty.held.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Faulty, directory=str(html)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Faulty.held.set()
    server.shutdown()


@pytest.fixture
def reader(browser: Browser) -> Iterator[Page]:
    """A page in which errors on the console are expected."""
    page = browser.new_page()
    page.set_default_timeout(60_000)
    yield page
    page.close()


@pytest.mark.parametrize(
    ("name", "fault", "said"),
    [
        ("pyodide.asm.wasm", "missing", "the server answers 404 for pyodide/pyodide.asm.wasm"),
        ("pyodide.asm.wasm", "cut off", r"pyodide/pyodide.asm.wasm has \d+ of \d+ bytes"),
        ("pyodide.asm.wasm", "spoiled", ".*WebAssembly.*"),
        ("pyodide.asm.js", "another file", r"pyodide/pyodide.asm.js has \d+ of \d+ bytes"),
        ("files.json", "missing", "the server answers 404 for files.json"),
        ("live-worker.js", "missing", "live-worker.js does not run"),
    ],
)
def test_what_does_not_come_is_named_and_can_be_asked_for_again(
    faulty: str, reader: Page, name: str, fault: str, said: str
) -> None:
    Faulty.faults[name] = fault
    reader.goto(f"{faulty}/book/idea/transform.html")
    third = cell(reader, 3)
    run_it = third.get_by_role("button", name="Run, cell 3")
    run_it.click()
    status = third.get_by_role("status")
    expect(status).to_have_text(
        re.compile(rf"^Python could not be loaded: {said}\. Run tries again\.$"), timeout=STARTS
    )
    expect(third.get_by_role("button", name="Stop")).to_be_hidden()
    expect(third.get_by_role("progressbar")).to_be_hidden()
    Faulty.faults.clear()
    run_it.click()
    if fault == "missing":  # of the others it is enough that Python is asked for again
        expect(status).to_contain_text("Ran in", timeout=STARTS)
    else:
        expect(status).not_to_contain_text("could not be loaded")


def test_offline_a_figure_s_cell_says_that_matplotlib_does_not_come(
    faulty: str, reader: Page
) -> None:
    reader.goto(f"{faulty}/book/idea/transform.html")
    cell(reader, 3).get_by_role("button", name="Run, cell 3").click()
    expect(cell(reader, 3).get_by_role("status")).to_contain_text("Ran in", timeout=STARTS)
    drawing = reader.locator(".cell.tag_live", has_text="plt.show()").first
    reader.context.set_offline(True)
    run_it = drawing.get_by_role("button", name=re.compile("^Run, cell"))
    run_it.click()
    status = drawing.get_by_role("status")
    expect(status).to_have_text(
        re.compile(
            r"^Not run: Matplotlib could not be loaded: the network does not bring "
            r"pyodide/\S+\.whl\. Run tries again\.$"
        )
    )
    expect(reader.locator(".bn-live-error")).to_have_count(0)
    reader.context.set_offline(False)
    run_it.click()
    expect(status).to_contain_text("Ran in", timeout=STARTS)


def test_on_a_phone_nothing_comes_unasked_and_all_can_be_stopped(
    faulty: str, browser: Browser
) -> None:
    Faulty.faults["pyodide.asm.wasm"] = "stalled"
    phone = browser.new_context(
        viewport={"width": 380, "height": 780}, has_touch=True, is_mobile=True
    )
    phone.set_default_timeout(60_000)
    page = phone.new_page()
    page.goto(f"{faulty}/book/idea/transform.html", wait_until="load")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    third = cell(page, 3)
    code = third.locator("pre").first
    code.tap()
    third.get_by_role("button", name="Edit").tap()
    editor = third.get_by_role("textbox")
    expect(editor).to_be_focused()
    page.keyboard.press("Control+Home")
    page.keyboard.insert_text("# mine\n")
    wanted = [address for address in asked if "/live/" in address or "worker" in address]
    assert [Path(address).name for address in wanted] == ["editor.js"]  # and not before Edit
    third.get_by_role("button", name="Close").tap()
    expect(editor).to_have_count(0)
    expect(code).to_contain_text("# mine\n")

    third.get_by_role("button", name="Run, cell 3").tap()
    status, progress = third.get_by_role("status"), third.get_by_role("progressbar")
    expect(status).to_have_text(re.compile(r"^Downloading Python, \d\d MB …$"))
    expect(progress).to_be_visible()
    page.wait_for_function("(bar) => bar.value > bar.max / 4", arg=progress.element_handle())
    third.get_by_role("button", name="Stop").tap()
    expect(status).to_have_text("Stopped")
    expect(progress).to_be_hidden()
    gone(page)
    Faulty.held.set()
    third.get_by_role("button", name="Run, cell 3").tap()
    expect(status).to_contain_text("Ran in", timeout=STARTS)
    phone.close()


def test_an_editor_that_does_not_come_can_be_asked_for_again(faulty: str, reader: Page) -> None:
    Faulty.faults["editor.js"] = "missing"
    reader.goto(f"{faulty}/book/idea/transform.html")
    third = cell(reader, 3)
    third.get_by_role("button", name="Edit").click()
    expect(third.get_by_role("status")).to_have_text(
        "The editor could not be loaded. Edit tries again."
    )
    Faulty.faults.clear()
    open_editor(third)


def test_escape_closes_the_editor(served: None, page: Page, site: str) -> None:
    page.goto(f"{site}/book/idea/transform.html")
    third = cell(page, 3)
    editor = open_editor(third)
    page.keyboard.press("Escape")
    expect(editor).to_have_count(0)
    expect(third.get_by_role("button", name="Edit")).to_be_focused()
    expect(third.locator("pre").first).to_be_visible()
    expect(third.get_by_role("status")).to_have_text("")
    third.locator("pre").first.click()  # with a mouse, a click on the code is enough
    expect(editor).to_be_focused()
