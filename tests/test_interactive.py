"""The interactive figures: small, right, and usable by keyboard alone."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from playwright.sync_api import Locator, Page, expect

import bnlib

SCRIPTS = sorted((ROOT / "book" / "assets" / "interactive").glob("*.js"))
Open = Callable[[str, str], Locator]


@pytest.fixture
def figure(page: Page, site: str) -> Open:
    """Opens a chapter and returns the figure of that name on it."""

    def open_figure(chapter: str, name: str) -> Locator:
        page.goto(f"{site}/book/{chapter}.html")
        found = page.locator(f'[data-interactive="{name}"].bn-ready')
        found.scroll_into_view_if_needed()
        return found

    return open_figure


def number(figure: Locator, name: str) -> str:
    """A number that the figure shows, with an ASCII minus sign."""
    return figure.locator(f'[data-name="{name}"]').inner_text().replace("−", "-")


def arithmetic(figure: Locator, name: str, *arguments: object) -> dict:
    """What the script of a figure computes."""
    call = f"([arguments]) => bn.arithmetic[{json.dumps(name)}](...arguments)"
    return figure.page.evaluate(call, [list(arguments)])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_small_and_ask_no_other_host(script: Path) -> None:
    assert script.stat().st_size <= 10_000
    source = script.read_text()
    assert source.startswith("/* ")
    assert set(re.findall(r"https?://[^\"'\s]+", source)) <= {"http://www.w3.org/2000/svg"}


def test_minibatch_shows_what_bnlib_computes(figure: Open) -> None:
    shown = figure("idea/transform", "minibatch")
    shown.get_by_label("Example 1", exact=True).focus()
    for _ in range(3):
        shown.page.keyboard.press("ArrowRight")  # from −3 to −1.5
    x = np.array([-1.5, -1, 1.5, 2, 5.5, 7])[:, None]
    y, cache = bnlib.batch_norm_train(x, eps=1e-5)
    assert number(shown, "mean") == f"{cache.mean[0]:.2f}"
    assert number(shown, "std") == f"{cache.var[0] ** 0.5:.2f}"
    assert number(shown, "normalized").split() == [f"{value:.2f}" for value in y[:, 0]]
    expect(shown.get_by_role("status")).to_contain_text("Mean 2.25")
    ours = arithmetic(shown, "minibatch", x[:, 0].tolist(), 1e-5)
    assert np.allclose(ours["normalized"], y[:, 0], rtol=0, atol=1e-12)
