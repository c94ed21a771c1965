"""Build the book from the stored outputs: python tools/build.py FOLDER makes FOLDER/_build/html.

Any warning fails the build. It always starts afresh: Sphinx repeats the warnings of a page only
when it reads the page again.
"""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    out = Path(sys.argv[1]).resolve()
    for old in (out / "_build").glob("*"):
        if old.name != "pdf":  # the book offers it as long as it belongs to the sources
            shutil.rmtree(old)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    options = ["-W", "-n", "--keep-going", "-q", "--path-output", str(out)]
    failed = subprocess.call([jupyter_book, "build", ".", *options], cwd=ROOT)
    # Jupyter Book 2 ends with success and builds nothing, hence the second condition.
    if failed or not (out / "_build/html/index.html").is_file():
        sys.exit("The book was not built: see the warnings above.")


if __name__ == "__main__":
    main()
