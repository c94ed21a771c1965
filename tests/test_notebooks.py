"""The notebooks keep the book's rules; nbval, in the same run, executes them."""

import inspect
import os
import re
import statistics
import subprocess
import symtable
import sys
import tempfile
from pathlib import Path

import nbformat
import notebooks
import pytest
import yaml
from conftest import ROOT
from joblib.externals.loky import process_executor
from nbformat import NotebookNode

PATHS = notebooks.chapters()
HERE = "|".join(map(re.escape, [str(ROOT), str(Path.home()), tempfile.gettempdir()]))
RECORDED = [path for path in PATHS if "experiments.study(" in path.read_text()]
IMAGES = ("image/svg+xml", "image/png")
SUPERSCRIPT = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
LINK = re.compile(r"\(#(claim-[\w-]+)\)")
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


def target(notebook: NotebookNode, claim: NotebookNode) -> str:
    """The name in the Markdown cell before a claim, to which others link."""
    before = notebook.cells[notebook.cells.index(claim) - 1]
    found = re.search(r"^\((claim-[\w-]+)\)=$", before.source, re.MULTILINE)
    assert before.cell_type == "markdown", claim.source
    assert found, f"no target (claim-...)= before: {claim.source}"
    return found[1]


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
        name = target(notebook, claim)
        assert re.search(rf"{name}(?![\w-])", evidence), f"evidence.md lacks {name}"


def names(source: str) -> tuple[set[str], set[str]]:
    """The global names that a cell assigns, and the others that it reads."""
    cell = symtable.symtable(source, "cell", "exec")
    symbols = cell.get_symbols()
    assigned = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
    read = {s.get_name() for s in symbols if s.is_referenced()}
    inner = cell.get_children()  # functions, classes, comprehensions
    while inner:
        table = inner.pop()
        read |= {s.get_name() for s in table.get_symbols() if s.is_global()}
        inner += table.get_children()
    return assigned, read - assigned


def behind(claim: NotebookNode, cells: list[NotebookNode]) -> list[NotebookNode]:
    """The claim, and before it the cells whose names it needs, and those that they need."""
    found, (_, wanted) = [claim], names(claim.source)
    for cell in reversed(cells[: cells.index(claim)]):
        assigned, read = names(cell.source)
        if assigned & wanted:
            wanted = wanted - assigned | read
            found.insert(0, cell)
    return found


def by_record(notebook: NotebookNode) -> dict[str, list[NotebookNode]]:
    """The targets of the claims that rest on recorded studies alone, with the cells behind each."""
    found = {}
    for claim in claims(notebook):
        cells = behind(claim, code_cells(notebook))
        code = "\n".join(cell.source for cell in cells)
        if "experiments.study(" in code and ".fit(" not in code:
            found[target(notebook, claim)] = cells
    return found


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
def test_claims_hold_in_the_records(path: Path) -> None:
    """In the full profile, where nothing else is trained: their lines are those of the page."""
    notebook = nbformat.read(path, as_version=4)
    found = by_record(notebook)
    cells = [cell for cell in code_cells(notebook) if any(cell in part for part in found.values())]
    code = ["from IPython.display import display", *(cell.source for cell in cells)]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        env={**os.environ, "BNLIB_PROFILE": "full", "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for cell in cells:
        by_data = any("mnist.load(" in each.source for each in behind(cell, cells))
        if cell in claims(notebook) or not by_data:
            for output in cell.outputs:
                shown = output.get("text", "").strip()
                assert shown in done.stdout, f"not what the page shows: {cell.source}"


def test_what_the_tests_leave_out_is_named() -> None:
    """What a claim says in the full profile alone rests on a record, or testing.md names it."""
    left_out = set()
    for path in PATHS:
        notebook = nbformat.read(path, as_version=4)
        more = {target(notebook, claim) for claim in claims(notebook) if "FULL" in claim.source}
        left_out |= more - set(by_record(notebook) if path in RECORDED else ())
    text = (ROOT / "book/reference/testing.md").read_text()
    assert set(re.findall(r"\(#(claim-[\w-]+)\)", text)) == left_out


def numbers(text: str) -> list[str]:
    """The numbers of a text or a program, without signs: 10⁻⁶ is 1e-6, and 10,000 is 10000."""
    text = re.sub(r"10([⁻⁰-⁹¹²³]+)", lambda m: f"1e{m[1].translate(SUPERSCRIPT)}", text)
    text = re.sub(r"(?<!\d)10\^\{?(-?\d+)\}?", r"1e\1", text)
    text = re.sub(r"(?<=\d)(?:,|_|\{,\})(?=\d{3})", "", text)
    return re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?", text)


def stands_in(number: str, others: list[str]) -> bool:
    """Whether one of the others is this number to its last digit, or as a percentage of 1."""
    digits = len(number.partition(".")[2])
    if "e" in number:
        return any(float(other) == float(number) for other in others)
    known = [float(other) * unit for other in others for unit in (1, 100)]
    return any(round(value, digits) == float(number) for value in known)


def test_numbers_in_the_evidence_are_those_of_the_claims() -> None:
    """Each stands in a claim that it is linked to, or in what its part of a record prints."""
    known: dict[str, list[str]] = {}
    for path in PATHS:
        notebook = nbformat.read(path, as_version=4)
        recorded = by_record(notebook) if path in RECORDED else {}
        for claim in claims(notebook):
            name = target(notebook, claim)
            before = notebook.cells[notebook.cells.index(claim) - 1].source
            sentence = before.partition(f"({name})=")[2]
            cells = recorded.get(name, [claim])
            if path.parent.name == "mnist":  # what trains prints its numbers apart from its claims
                cells = code_cells(notebook)
            printed = [output_text(cell) for cell in cells]
            known[name] = numbers("\n".join([sentence, claim.source, *printed]))
    missing = []
    for row in (ROOT / "book/reference/evidence.md").read_text().splitlines():
        linked = [name for name in LINK.findall(row) if name in known]
        if not row.startswith("|") or not linked:
            continue
        cells = row.strip("| ").split(" | ")
        parts = [(cells[0], linked)] if "this book" in cells else []
        # What follows a link is about its claim; so is what stands before the first.
        for part in re.split(r"(?=\[[^\[\]]*\]\(#claim)", cells[-1]):
            parts.append((part, LINK.findall(part) or linked[:1]))
        for part, names in parts:
            part = re.sub(r"\{cite[^}]*\}`[^`]*`|\(#claim[^)]*\)", "", part)
            found = sum((known[name] for name in names), [])
            missing += [(names, n, part) for n in numbers(part) if not stands_in(n, found)]
    assert not missing, "\n".join(map(str, missing))


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


def test_a_worker_that_joblib_replaces_is_no_output() -> None:
    """Its memory decides, and when it is looked at, which is a question of the machine's load."""
    message = "A worker stopped while some jobs"
    assert message in inspect.getsource(process_executor)
    program = f"import warnings; warnings.warn({message + ' were given'!r})"
    kernel = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (kernel.returncode, kernel.stderr) == (0, "")


def test_is_in_the_table_of_contents() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    found = {path.relative_to(ROOT).with_suffix("").as_posix() for path in PATHS}
    assert found <= listed
