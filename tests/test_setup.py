"""Setting up .venv: once, and with one clear line when something is missing."""

import ast
import errno
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest
import setup_env
from conftest import ROOT


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own for setup_env, whose pip only notes that it was called."""
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text("one version")
    folder = tmp_path / ".venv"
    monkeypatch.setattr(setup_env, "ROOT", str(tmp_path))
    monkeypatch.setattr(setup_env, "VENV", str(folder))
    monkeypatch.setattr(setup_env, "PYTHON", str(folder / "bin" / "python"))
    monkeypatch.setattr(setup_env, "STAMP", str(folder / "complete"))
    monkeypatch.setattr(setup_env, "pip", lambda *_: (tmp_path / "pip").open("a").write("x"))
    create = venv.create
    monkeypatch.setattr(venv, "create", lambda path, clear, with_pip: create(path, clear=clear))
    return tmp_path


def test_a_second_run_does_nothing(project: Path) -> None:
    setup_env.main()
    calls = (project / "pip").read_text()
    setup_env.main()
    assert (project / "pip").read_text() == calls


def test_changed_requirements_are_installed_into_the_same_venv(project: Path) -> None:
    setup_env.main()
    kept = project / ".venv" / "kept"
    kept.touch()
    (project / "requirements.txt").write_text("another version")
    setup_env.main()
    assert (project / "pip").read_text() == "x" * 4
    assert kept.exists()


def test_an_interrupted_install_starts_afresh(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: str) -> None:
        (project / ".venv" / "half a package").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(setup_env, "pip", killed)
        with pytest.raises(KeyboardInterrupt):
            setup_env.main()
    setup_env.main()
    assert not (project / ".venv" / "half a package").exists()
    assert setup_env.has(setup_env.fingerprint())


def test_what_a_link_leads_to_is_left_alone(project: Path) -> None:
    (project / "another").mkdir()
    (project / "another" / "file").touch()
    (project / ".venv").symlink_to("another")
    setup_env.main()
    assert (project / "another" / "file").exists()
    assert not (project / ".venv").is_symlink()


@pytest.mark.parametrize("moment", ["before", "during"])
def test_a_full_disk_is_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def full(*_: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        if moment == "before":
            patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1e9))
        else:
            patch.setattr(setup_env, "pip", full)
        with pytest.raises(SystemExit, match="^There is no room left on the disk[^\n]*$"):
            setup_env.main()
    setup_env.main()
    assert setup_env.has(setup_env.fingerprint())


def test_pip_on_a_full_disk_is_one_line() -> None:
    said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    assert setup_env.explain(said + "\n") == setup_env.NO_DISK


def test_an_environment_of_another_name_has_requirements_of_its_own(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "requirements-bench.txt").write_text("one version")
    base = setup_env.fingerprint()
    monkeypatch.setattr(setup_env, "GROUP", "-bench")
    monkeypatch.setattr(setup_env, "REQUIREMENTS", "requirements-bench.txt")
    seen = {base, setup_env.fingerprint()}
    for name in ("requirements-bench.txt", "requirements.txt", "pyproject.toml"):
        (project / name).write_text("another version")
        seen.add(setup_env.fingerprint())
    assert len(seen) == 5


def test_without_network_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "setup_env.py", tmp_path / "tools")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "requirements.txt").write_text("numpy==2.4.6\n")
    (tmp_path / "requirements-bench.txt").write_text("-r requirements.txt\n")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    environment |= {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",  # nothing listens there
        "PIP_RETRIES": "1",
        "PIP_NO_CACHE_DIR": "1",
    }
    command = [sys.executable, "tools/setup_env.py", "bench"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.startswith("The package index cannot be reached")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / ".venv-bench" / "complete").exists()
    assert [path.name for path in tmp_path.glob(".venv*")] == [".venv-bench"]


def test_an_unknown_failure_shows_what_pip_said_last() -> None:
    assert setup_env.explain("1\n" * 20 + "the reason\n").endswith("\nthe reason")


def test_an_old_python_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 8, 18, "final", 0))
    with pytest.raises(SystemExit, match=r"^Python 3.11 or newer is needed, this is 3.8.18: .*$"):
        setup_env.main()


def test_an_old_python_can_read_the_file() -> None:
    """No syntax younger than Python 2.7, which still reads what it will not run."""
    young = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.AsyncFunctionDef, ast.Nonlocal)
    for node in ast.walk(ast.parse((ROOT / "tools" / "setup_env.py").read_text())):
        assert not isinstance(node, young)
        if isinstance(node, ast.FunctionDef):
            assert not node.returns
            assert not node.args.kwonlyargs
            assert not any(argument.annotation for argument in node.args.args)


def test_make_takes_the_first_python_that_is_new_enough(tmp_path: Path) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")  # too old, says the Makefile's test
    (tmp_path / "python3").chmod(0o755)
    for name in ("python3.13", "python3.12"):
        (tmp_path / name).symlink_to(sys.executable)
    outer = ("MAKEFLAGS", "MAKELEVEL", "PYTHON")  # of a `make test` around this test
    environment = {key: value for key, value in os.environ.items() if key not in outer}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    command = ["make", "--dry-run", "env"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "python3.13 tools/setup_env.py\n"
