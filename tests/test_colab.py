"""A chapter in Colab: only the notebook file, only what Colab has, the package from git."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
from address import repository
from conftest import ROOT

CHAPTER = ROOT / "book" / "idea" / "transform.ipynb"
# Packages of the book's environment that Colab lacks, bnlib's own above all.
NOT_IN_COLAB = ("__editable__", "batchnorm_book", "jupyter_book", "myst", "nbval", "sphinx")


@pytest.fixture
def colab(tmp_path: Path) -> Path:
    """The Python of a fresh venv that sees this environment's packages, less those."""
    packages = tmp_path / "packages"
    packages.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(NOT_IN_COLAB):
            (packages / entry.name).symlink_to(entry)
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "colab.pth").write_text(str(packages))
    return folder / "bin" / "python"


@pytest.fixture
def environment(copy_of_tree: Path, tmp_path: Path) -> dict[str, str]:
    """No network: pip asks no index, and a git repository here stands for the address."""
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for step in (
        ["init", "-q", "-b", repository()["branch"]],
        ["add", "-A"],
        ["commit", "-qm", "x"],
    ):
        subprocess.run([*git, *step], cwd=copy_of_tree, check=True)
    return {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        "BNLIB_DATA": "embedded",
        "BNLIB_PROFILE": "quick",
        "HOME": str(tmp_path),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{copy_of_tree.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": repository()["url"],
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this as "no isolation"
    }


def test_a_chapter_runs_from_its_file_alone(
    colab: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    def run(*command: str) -> str:
        done = subprocess.run(
            [colab, *command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    missing = "import importlib.util; print(importlib.util.find_spec('bnlib'))"
    assert run("-c", missing) == "None\n"
    shutil.copy(CHAPTER, tmp_path / "chapter.ipynb")
    run("-c", "from nbclient.cli import main; main()", "--inplace", "chapter.ipynb")
    executed = nbformat.read(tmp_path / "chapter.ipynb", as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    data = "from importlib.resources import files; print(*files('bnlib.data').iterdir())"
    installed = run("-c", data)
    assert installed.count(".gz") == 4
    assert str(ROOT) not in installed
