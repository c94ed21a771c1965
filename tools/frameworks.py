"""Make the environments of the frameworks that BatchNorm is measured in: .venv-frameworks/NAME.

tests/frameworks/frameworks.toml says with which Python and which packages. Takes the names of rows,
or makes all. One that cannot be made is left out, with the reason.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
DECLARED = tomllib.loads((ROOT / "tests" / "frameworks" / "frameworks.toml").read_text())


def main() -> None:
    rows = DECLARED["rows"]
    if unknown := set(sys.argv[1:]) - set(rows):
        sys.exit(f"unknown: {', '.join(sorted(unknown))}; expected some of {', '.join(rows)}")
    for name in dict.fromkeys(rows[row]["environment"] for row in sys.argv[1:] or rows):
        declared, folder = DECLARED["environments"][name], ROOT / ".venv-frameworks" / name
        stamp = folder / "complete"
        if stamp.exists() and stamp.read_text() == repr(declared):
            continue
        print(f"Setting up {name} in .venv-frameworks/{name} ...", flush=True)
        try:
            make(folder, declared)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            print(f"... not to be had: {said[-1]}", flush=True)
            continue
        stamp.write_text(repr(declared))


def make(folder: Path, declared: dict) -> None:
    run([python(declared["python"]), "-m", "venv", "--clear", folder])
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--prefer-binary"]
    if "build" in declared:
        run([*pip, *declared["build"]])
        pip.append("--no-build-isolation")
    run([*pip, *declared["packages"]])


def python(version: str) -> Path:
    """The Python of that version: on the path, or one of pyenv's."""
    pyenv = Path.home() / ".pyenv" / "versions"
    found = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, found):
        # pyenv puts a command on the path for each version, whether or not it is switched on.
        if subprocess.run([candidate, "--version"], capture_output=True).returncode == 0:
            return Path(candidate)
    raise FileNotFoundError(f"there is no python{version} here")


def run(command: list) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


if __name__ == "__main__":
    main()
