"""Give the book another repository address: make address URL=https://github.com/OWNER/REPOSITORY

The address stands in _config.yml. This writes it there and in every file that repeats it.
"""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
REPEATED_IN = ["README.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml"]


def repository() -> dict[str, str]:
    """The section `repository` of _config.yml: url, branch and path_to_book."""
    return yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]


def main() -> None:
    new = sys.argv[1] if len(sys.argv) == 2 else ""
    if not re.fullmatch(r"https://[\w.-]+/[\w.-]+/[\w.-]*\w", new) or new.endswith(".git"):
        sys.exit("Name the address: make address URL=https://github.com/OWNER/REPOSITORY")
    old = repository()["url"]
    pages = [path for path in (ROOT / "book").rglob("*") if path.suffix in (".md", ".ipynb")]
    for path in [
        ROOT / "_config.yml",
        *(ROOT / name for name in REPEATED_IN),
        *sorted(pages),
    ]:
        before = path.read_text()
        after = re.sub(re.escape(old) + r"(?![\w-])", lambda _: new, before)
        if after != before:
            path.write_text(after)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
