"""The addresses stand in _config.yml, and everything that repeats them agrees."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import notebooks
import pytest
import tomllib
import yaml
from address import base_url, repository
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


def give(address: list[str], tree: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `make address` without the making of an environment."""
    command = [sys.executable, "tools/address.py", *address]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True)


@pytest.mark.parametrize(
    "url, base",
    [
        ("https://github.com/Someone/A-book", "https://someone.github.io/A-book/"),
        ("https://github.com/Me/me.github.io", "https://me.github.io/"),
        ("https://github.com/me/you.github.io", "https://me.github.io/you.github.io/"),
        ("https://gitlab.com/group/part/book", None),
        ("https://git.example.org:8443/me/book", None),
        ("https://github.example.org/me/book", None),  # of a company
    ],
)
def test_where_the_pages_are_follows_from_a_repository_on_github(url: str, base: str) -> None:
    assert base_url(url) == base


@pytest.mark.parametrize(
    "url, base, pages",
    [
        ("https://github.com/me/book", "", "https://me.github.io/book/"),
        ("https://github.com/me/book", "https://book.me.org", "https://book.me.org/"),
        ("https://git.me.org:8443/a/b/book", "https://me.org/~me/", "https://me.org/~me/"),
    ],
)
def test_a_new_address_replaces_the_old_one_everywhere(
    copy_of_tree: Path, url: str, base: str, pages: str
) -> None:
    old = repository()["url"]
    done = give([url, base], copy_of_tree)
    assert done.returncode == 0, done.stderr
    for path in copy_of_tree.rglob("*"):
        if path.is_file() and path.suffix in (".md", ".ipynb", ".yml", ".toml", ".cff"):
            assert old not in path.read_text(), path
    config = yaml.safe_load((copy_of_tree / "_config.yml").read_text())
    assert config["repository"]["url"] == url
    assert config["html"]["baseurl"] == pages


@pytest.mark.parametrize(
    "address, message",
    [
        ([], "URL is ''; expected"),
        (["", "https://me.org/"], "URL is ''; expected"),
        (["github.com/me/book"], "URL is 'github.com/me/book'; expected"),
        (["https://github.com/me"], "URL is 'https://github.com/me'; expected"),
        (["https://x.org/me/book.git"], "URL is 'https://x.org/me/book.git'; expected"),
        (["https://gitlab.com/me/part/book"], "BASE is missing; expected"),
        (["https://github.com/me/book", "me.org"], "BASE is 'me.org'; expected"),
    ],
)
def test_something_else_than_an_address_is_refused(address: list[str], message: str) -> None:
    done = give(address)
    assert done.returncode == 1
    assert done.stderr.startswith(message)


def test_the_book_is_built_from_another_forge(copy_of_tree: Path) -> None:
    pages = "https://example.org/books/bn/"
    give(["https://git.example.org/group/part/book", pages], copy_of_tree)
    (copy_of_tree / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters: [{file: book/notebook}]\n"
    )
    (copy_of_tree / "book" / "index.md").write_text("# A page\n")
    cells = [nbformat.v4.new_markdown_cell("# A notebook")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(notebook, copy_of_tree / "book" / "notebook.ipynb")
    command = [sys.executable, "tools/build.py", str(copy_of_tree)]
    done = subprocess.run(command, cwd=copy_of_tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (copy_of_tree / "_build" / "html" / "book" / "notebook.html").read_text()
    assert f'<link rel="canonical" href="{pages}book/notebook.html"' in page
    assert "colab" not in page
