"""Execute the chapters again and store their outputs: python tools/notebooks.py [NOTEBOOK ...]

What is stored depends on code, data and versions alone: a second run changes no byte. A notebook
that fails stays as it was. BNLIB_PROFILE=quick allows outputs of the quick profile, for drafts.
"""

import hashlib
import os
import platform
import re
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import nbformat
from address import ROOT, repository
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

# The first cell of every notebook.
SETUP = """\
# In Colab: install the book's package. Elsewhere this cell does nothing.
import importlib.util

if importlib.util.find_spec("bnlib") is None:
    %pip install --quiet "batchnorm-book @ git+{url}@{branch}\""""

# joblib says so when it replaces a worker whose memory has grown. No run is lost by it, and when
# joblib looks is a question of the machine's load: kernels inherit that it is nothing to report.
QUIET = {"PYTHONWARNINGS": "ignore:A worker stopped while some jobs:UserWarning"}


def chapters() -> list[Path]:
    """Every notebook of the book."""
    found = (ROOT / "book").rglob("*.ipynb")
    return sorted(path for path in found if ".ipynb_checkpoints" not in path.parts)


def setup_cell() -> NotebookNode:
    """The set-up cell for the address in _config.yml; the page leaves it out."""
    source = SETUP.format(**repository())
    tags = ["setup", "remove-cell"]
    return nbformat.v4.new_code_cell(source, id="setup", metadata={"tags": tags})


def code_sha256(notebook: NotebookNode) -> str:
    """A hash of the notebook's code; the set-up cell, which holds the address, is left out."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code[1:]).encode()).hexdigest()


def normalize(notebook: NotebookNode) -> None:
    """Put the set-up cell first, give every cell a lasting id, drop what editors add."""
    setup = setup_cell()
    if notebook.cells and "setup" in notebook.cells[0].metadata.get("tags", []):
        setup.execution_count = notebook.cells.pop(0).execution_count
    notebook.cells.insert(0, setup)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    taken: set[str] = set()
    for index, cell in enumerate(notebook.cells):
        kept = {key: cell.metadata[key] for key in ("mystnb", "tags") if key in cell.metadata}
        cell.metadata = NotebookNode(kept)
        if not re.fullmatch(r"[\w-]{1,64}", cell.get("id", ""), re.ASCII) or cell.id in taken:
            cell.id = hashlib.sha256(f"{index} {cell.source}".encode()).hexdigest()[:8]
        taken.add(cell.id)
    notebook.metadata = NotebookNode(
        kernelspec={
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        language_info={"name": "python"},
    )


def execute(path: Path, profile: str, data: str) -> None:
    notebook = nbformat.read(path, as_version=4)
    normalize(notebook)
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": path.parent}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no lecture on TCP sockets
    )
    client.execute()
    normalize(notebook)  # the kernel's answers rewrite the metadata
    notebook.metadata.bnlib = {
        "profile": profile,
        "data": data,
        "versions": {
            "python": ".".join(platform.python_version_tuple()[:2]),
            **{name: version(name).split("+")[0] for name in ("numpy", "torch", "matplotlib")},
        },
        "code_sha256": code_sha256(notebook),
    }
    nbformat.validate(notebook)
    # Written beside the notebook and then moved over it: it is never there half written.
    draft = path.with_suffix(".ipynb.new")
    draft.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    os.replace(draft, path)


def main() -> None:
    from bnlib import mnist

    os.environ.update(QUIET)
    profile = os.environ.setdefault("BNLIB_PROFILE", "full")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it would say about embedded digits is said here
        images = mnist.load()
    if profile == "full" and not images.full:
        sys.exit(
            "The full profile needs full MNIST, and only the embedded digits are at hand: "
            "set BNLIB_DATA to a folder that holds MNIST/raw, or BNLIB_PROFILE=quick for a draft."
        )
    failures = 0
    for path in [Path(name).resolve() for name in sys.argv[1:]] or chapters():
        print(path.relative_to(ROOT), flush=True)
        try:
            execute(path, profile, images.source)
        except CellExecutionError as error:
            failures += 1
            print(f"failed, and stays as it was:\n{error}", file=sys.stderr)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
