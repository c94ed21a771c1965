"""Live code: what is served is what was published, and the cells of a page run in it."""

import re
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import live
import nbformat
import notebooks
import pytest
from bnbook import live as extension
from bnlive.plan import needed
from bnlive.run import CHARACTERS, run
from bnlive.run import page as namespace
from conftest import ROOT
from nbformat import NotebookNode
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

PART_I = sorted((ROOT / "book" / "idea").glob("*.ipynb"))
STARTS = 60_000  # ms that Python may take to start, with all cells of a page

expect.set_options(timeout=15_000)


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


def test_code_that_is_not_python_needs_nothing() -> None:
    assert needed(["a = 1", "a +"], 1) == [1]


def test_output_comes_in_order_and_ends_with_the_last_value() -> None:
    got = Received()
    assert run("import sys\nprint(1)\nprint(2, file=sys.stderr)\nx = 3\nx", "cell 1", got)
    assert got == [("stdout", "1\n"), ("stderr", "2\n"), ("result", "3")]
    got.clear()
    assert run("x;", "cell 2", got)
    assert run("None", "cell 3", got)
    assert not got


def test_an_error_is_shown_as_python_shows_it() -> None:
    got = Received()
    assert not run("def f(x):\n    return 1 / x\n\n\nf(0)", "cell 1", got)
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
    assert not run("a = (", "cell 2", got)
    assert got[0][1].startswith('  File "cell 2", line 1\n    a = (\n        ^\nSyntaxError: ')
    got.clear()
    assert not run("import sys\nsys.exit()", "cell 3", got)
    assert got[0][1].endswith("SystemExit\n")


def test_a_loop_that_prints_does_not_flood_the_page() -> None:
    got = Received()
    run("for i in range(100_000):\n    print(i)", "cell 1", got)
    [(_, text)] = got
    assert CHARACTERS < len(text) < CHARACTERS + 100
    assert text.endswith("the rest is not shown.\n")
    assert got.pieces < 1000


@pytest.mark.parametrize(
    "notebook",
    [path for path in notebooks.chapters() if path.parent.name in ("mnist", "speed")],
    ids=lambda path: path.stem,
)
def test_the_stubs_need_numpy_alone(notebook: Path) -> None:
    """What needs no browser: the cells run by themselves and print what the book stores."""
    cells = live_cells(notebook)
    assert cells
    sources = [cell.source for cell in cells]
    for index, cell in enumerate(cells):
        for above in needed(sources, index):
            got = Received()
            assert run(sources[above], f"cell {above + 1}", got)
        assert "".join(text for _, text in got) == stored_text(cell)
        del namespace.__dict__["check"]


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


def test_a_book_opened_from_a_file_has_no_buttons(browser: Browser, html: Path) -> None:
    page = browser.new_page()
    page.goto((html / "book" / "idea" / "transform.html").as_uri(), wait_until="load")
    assert page.locator(".tag_live").count()
    assert not page.locator(".bn-live").count()
    page.close()


@pytest.mark.parametrize("notebook", PART_I, ids=lambda path: path.stem)
def test_live_cells_give_what_the_book_stores(
    served: None, page: Page, site: str, notebook: Path
) -> None:
    """All live cells of a chapter, from the first to the last."""
    cells = live_cells(notebook)
    page.goto(f"{site}/book/idea/{notebook.stem}.html")
    last = cell(page, len(cells))
    last.get_by_role("button", name="Edit").click()
    last.get_by_role("button", name="Run all above").click()
    expect(last.get_by_role("status")).to_contain_text(
        f", after {len(cells) - 1} cells above", timeout=STARTS
    )
    for number, stored in enumerate(cells, start=1):
        output = cell(page, number).locator(".cell_output")
        assert output.locator(".bn-figure > svg").count() == stored_figures(stored)
        if "nbval-ignore-output" not in stored.metadata.tags:
            printed = "".join(output.locator(".output pre").all_text_contents())
            # The page has no torch: autograd, a witness of the backward pass, is not heard.
            expected = re.sub(r"   autograd \S+", "", stored_text(stored))
            assert without_rounding(printed) == without_rounding(expected), stored.source


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
    expect(error).to_contain_text('File "cell 1", line 7, in <module>')
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
    fifth.get_by_role("button", name="Run, cell 5").click()
    expect(status).to_contain_text("after 1 cell above")
    expect(fifth.locator(".cell_output pre")).to_contain_text("[1. 1. 1.]")

    summary = claim.locator("summary")
    expect(summary).to_have_text(re.compile("^✓ "))
    summary.press("Enter")
    open_editor(claim)
    page.keyboard.press("Control+Home")
    page.keyboard.type("assert False\n")
    page.keyboard.press("Control+Enter")
    expect(summary).to_have_text(re.compile("^✗ "))
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
