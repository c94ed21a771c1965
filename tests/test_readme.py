"""What the README shows is what happens."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

README = (ROOT / "README.md").read_text()


EXAMPLES = re.findall(r"```python\n([^`]*)```\n\n```text\n([^`]*)```", README)


@pytest.mark.parametrize("example, shown", EXAMPLES)
def test_an_example_prints_what_it_shows(example: str, shown: str) -> None:
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (shown, "")


def test_its_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = set(re.findall(r"^make (\w+)|`make (\w+)", README, re.MULTILINE))
    assert len(commands) >= 5
    for command in {one or other for one, other in commands}:
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), f"make {command}"


def test_its_files_exist() -> None:
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert "://" in link or (ROOT / link).exists(), link
