"""The notebooks keep the book's rules; nbval, in the same run, executes them."""

import re
import statistics
import tempfile
from pathlib import Path

import nbformat
import notebooks
import pytest
import yaml
from conftest import ROOT
from nbformat import NotebookNode

PATHS = notebooks.chapters()
HERE = "|".join(map(re.escape, [str(ROOT), str(Path.home()), tempfile.gettempdir()]))
IMAGES = ("image/svg+xml", "image/png")
# A result in the prose: a percentage, or a factor such as 2.8× (but not a size such as 3 × 100).
RESULT = re.compile(r"(?<![\w.,-])\d[\d,]*(?:\.\d+)?(?= ?\\?%| ?×(?! ?\d))")


@pytest.fixture(params=PATHS, ids=lambda path: path.relative_to(ROOT / "book").as_posix())
def notebook(request: pytest.FixtureRequest) -> NotebookNode:
    content = nbformat.read(request.param, as_version=4)
    content.path = request.param
    return content


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells after the set-up cell."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"][1:]


def claims(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in code_cells(notebook) if "claim" in cell.metadata.get("tags", [])]


def output_text(cell: NotebookNode) -> str:
    """Everything that a code cell printed or drew, as text."""
    parts = []
    for output in cell.outputs:
        parts.append(output.get("text", ""))
        parts += [value for key, value in output.get("data", {}).items() if key != "image/png"]
    return "\n".join(map(str, parts))


def test_is_valid_and_normal(notebook: NotebookNode) -> None:
    """As `make notebooks` writes it: the same first cell, and nothing that an editor adds."""
    content = nbformat.read(notebook.path, as_version=4)
    nbformat.validate(content)
    made = content.metadata.pop("bnlib", None)
    assert made is not None, "run `make notebooks`"
    before = nbformat.writes(content)
    notebooks.normalize(content)
    assert nbformat.writes(content) == before, "run `make notebooks`"


def test_outputs_belong_to_the_code(notebook: NotebookNode) -> None:
    assert all(cell.execution_count for cell in code_cells(notebook)), "a cell was not run"
    made = notebook.metadata.bnlib
    assert made.code_sha256 == notebooks.code_sha256(notebook), "the code changed since"
    assert made.profile == "full"
    assert made.data.startswith("full MNIST")


def test_outputs_are_clean(notebook: NotebookNode) -> None:
    for cell in code_cells(notebook):
        streams = [output.get("name") for output in cell.outputs]
        assert "stderr" not in streams, f"a warning or a notice: {output_text(cell)}"
        found = re.search(
            rf"{HERE}|/home/|/Users/|site-packages| at 0x[0-9a-f]+", output_text(cell)
        )
        assert not found, f"differs from machine to machine: {found[0]}"


def test_cells_are_short(notebook: NotebookNode) -> None:
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert max(lengths) <= 30
    assert statistics.median(lengths) <= 12
    assert not any("autoreload" in cell.source for cell in code_cells(notebook))


def test_claims_are_assertions_with_evidence(notebook: NotebookNode) -> None:
    evidence = (ROOT / "book/reference/evidence.md").read_text()
    assert claims(notebook), "no cell is tagged `claim`"
    for claim in claims(notebook):
        assert "assert" in claim.source
        assert output_text(claim).startswith("✓ ")
        before = notebook.cells[notebook.cells.index(claim) - 1]
        target = re.search(r"^\((claim-[\w-]+)\)=$", before.source, re.MULTILINE)
        assert before.cell_type == "markdown", claim.source
        assert target, f"no target (claim-...)= before: {claim.source}"
        assert re.search(rf"{target[1]}(?![\w-])", evidence), f"evidence.md lacks {target[1]}"


def test_figures_have_alt_text(notebook: NotebookNode) -> None:
    for cell in code_cells(notebook):
        if any(image in output.get("data", {}) for output in cell.outputs for image in IMAGES):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) >= 20, f"say what the figure shows: {cell.source}"


def test_results_in_the_prose_are_printed(notebook: NotebookNode) -> None:
    """A percentage or a factor stands in a cell or its output, unless the paragraph cites it."""
    known = "\n".join(cell.source + "\n" + output_text(cell) for cell in code_cells(notebook))
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        for paragraph in re.split(r"\n\s*\n", cell.source):
            if "{cite" in paragraph:
                continue
            for number in RESULT.findall(paragraph):
                assert re.search(rf"(?<![\d.]){re.escape(number)}(?!\d|\.\d)", known), (
                    f"no cell prints {number}, but the text says: {paragraph}"
                )


def test_is_in_the_table_of_contents() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    found = {path.relative_to(ROOT).with_suffix("").as_posix() for path in PATHS}
    assert found <= listed
