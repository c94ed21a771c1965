"""Give the book other addresses: make address URL=https://github.com/OWNER/REPOSITORY

The repository's address and that of the pages stand in _config.yml. This writes them there, and the
first into every file that repeats it. Where the pages are follows from the repository on
github.com only: elsewhere, or with a domain of your own, add BASE=https://....
"""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
REPEATED_IN = ["README.md", "CONTRIBUTING.md", "CITATION.cff", "pyproject.toml"]
HOST = r"https://[\w.-]+(:\d+)?"


def repository() -> dict[str, str]:
    """The section `repository` of _config.yml: url, branch and path_to_book."""
    return yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]


def base_url(url: str) -> str | None:
    """Where GitHub shows the pages of a repository; None for what is not on github.com."""
    if not (parts := re.fullmatch(r"https://github\.com/([^/]+)/([^/]+)", url)):
        return None
    owner, name = parts[1].lower(), parts[2]
    folder = "" if name.lower() == f"{owner}.github.io" else f"{name}/"
    return f"https://{owner}.github.io/{folder}"


def main() -> None:
    url, base = (*sys.argv[1:], "", "")[:2]
    if not re.fullmatch(HOST + r"(/[\w.-]*\w){2,}", url) or url.endswith(".git"):
        sys.exit(f"URL is {url!r}; expected one such as https://github.com/OWNER/REPOSITORY")
    base = base or base_url(url)
    if base is None:
        sys.exit(f"BASE is missing; expected the address at which the pages of {url} are shown")
    if not re.fullmatch(HOST + r"(/[\w.~-]+)*/?", base):
        sys.exit(f"BASE is {base!r}; expected one such as https://OWNER.github.io/REPOSITORY/")
    old = repository()["url"]
    pages = [path for path in (ROOT / "book").rglob("*") if path.suffix in (".md", ".ipynb")]
    for path in [
        ROOT / "_config.yml",
        *(ROOT / name for name in REPEATED_IN),
        *sorted(pages),
    ]:
        before = path.read_text()
        after = re.sub(re.escape(old) + r"(?![\w-])", lambda _: url, before)
        if path.name == "_config.yml":
            after = re.sub(r"(?<=  baseurl: )\S+", lambda _: base.rstrip("/") + "/", after)
        if after != before:
            path.write_text(after)
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
