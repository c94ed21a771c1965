"""Live code: what a page needs to run its cells tagged `live`, where .live is there."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

EXTENSIONS = Path(__file__).resolve().parents[1]
ROOT = EXTENSIONS.parents[1]
LIVE = ROOT / ".live"  # made by tools/live.py
# What Python in the page imports; torch is not there.
PACKED = {
    ROOT: ["bnlib/*.py", "bnlib/frameworks.json", "bnlib/exercises/*.py", "bnlib/data/*"],
    EXTENSIONS: ["bnlive/*.py", "bnbook/svg.py"],
}


def setup(app: Sphinx) -> None:
    if (LIVE / "complete").is_file():
        app.connect("builder-inited", copy_files)
        app.connect("html-page-context", add_scripts)


def copy_files(app: Sphinx) -> None:
    """Put Python for the browser and the editor beside the page's own scripts."""
    if app.builder.name != "html":  # the PDF runs no code
        return
    folder = Path(app.outdir, "_static", "live")
    shutil.copytree(LIVE, folder, ignore=shutil.ignore_patterns("complete"), dirs_exist_ok=True)
    with zipfile.ZipFile(folder / "bnlib.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for base, patterns in PACKED.items():
            for path in sorted(path for pattern in patterns for path in base.glob(pattern)):
                if path.is_file():
                    # Without a date: the same files make the same archive.
                    archive.writestr(
                        zipfile.ZipInfo(path.relative_to(base).as_posix()),
                        path.read_bytes(),
                        zipfile.ZIP_DEFLATED,
                    )
    (folder / "files.json").write_text(json.dumps(sizes(folder)))


def sizes(folder: Path) -> dict[str, dict[str, int]]:
    """The bytes of each file that the page's Python fetches: to start, and for a figure."""
    found: dict[str, dict[str, int]] = {"python": {}, "matplotlib": {}}
    for path in sorted((*folder.glob("*.zip"), *folder.glob("pyodide/*"))):
        drawing = path.suffix == ".whl" and not path.name.startswith("numpy-")
        part = found["matplotlib" if drawing else "python"]
        part[path.relative_to(folder).as_posix()] = path.stat().st_size
    return found


def add_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: object
) -> None:
    if app.builder.name == "html" and "tag_live" in context.get("body", ""):
        app.add_css_file("live.css")
        app.add_js_file("live.js", loading_method="defer")
