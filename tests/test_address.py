"""The repository's address stands in _config.yml, and everything that repeats it agrees."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import notebooks
import tomllib
import yaml
from address import repository
from conftest import ROOT


def test_files_repeat_the_address() -> None:
    url, branch = repository()["url"], repository()["branch"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert all(link.startswith(url) for link in project["urls"].values())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["repository-code"] == url
    for page in "README.md", "book/index.md", "book/reference/teaching.md":
        install = re.findall(r"^pip install .*", (ROOT / page).read_text(), re.MULTILINE)
        assert install == [f'pip install "batchnorm-book @ git+{url}@{branch}"'], page


def test_every_notebook_installs_from_the_address() -> None:
    for path in notebooks.chapters():
        first = nbformat.read(path, as_version=4).cells[0]
        assert first.source == notebooks.setup_cell().source, path
        assert repository()["url"] in first.source


def test_a_new_address_replaces_the_old_one_everywhere(copy_of_tree: Path) -> None:
    old, new = repository()["url"], "https://example.org/someone/a-book"
    command = [sys.executable, "tools/address.py", new]
    subprocess.run(command, cwd=copy_of_tree, check=True, capture_output=True)
    for path in copy_of_tree.rglob("*"):
        if path.is_file() and path.suffix in (".md", ".ipynb", ".yml", ".toml", ".cff"):
            assert old not in path.read_text(), path
    assert f"url: {new}\n" in (copy_of_tree / "_config.yml").read_text()


def test_something_else_than_an_address_is_refused() -> None:
    for wrong in ("", "github.com/me/book", "https://github.com/me", "https://x.org/me/book.git"):
        command = [sys.executable, "tools/address.py", wrong]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr.startswith("Name the address: ")
