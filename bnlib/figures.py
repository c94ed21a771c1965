"""The book's figures: one palette for light and dark pages, and one Matplotlib style.

A notebook stores each figure as an SVG in the light colors. The book's Sphinx extension puts that
SVG into the page and replaces each light color of `COLORS` by a CSS variable, so that the figure
follows the reader's color mode. Only the colors of this palette do: use them by name.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


class Color(NamedTuple):
    """One color of the palette: its hex value on a light and on a dark page."""

    light: str
    dark: str


# The four series colors have at least 4:1 contrast with both papers, and stay apart for readers
# with any of the three kinds of color blindness (tests/test_figures.py computes both).
COLORS = {
    "ink": Color("#1d242c", "#e4e7ea"),
    "muted": Color("#5b6672", "#9aa5b1"),
    "grid": Color("#e3e5e3", "#2c323a"),
    "paper": Color("#fdfdfb", "#14171c"),
    "blue": Color("#1a73d9", "#4d9df5"),
    "orange": Color("#cc5a10", "#f0843f"),
    "green": Color("#0a5c3a", "#7ae6b4"),
    "purple": Color("#7a2f86", "#c37ab2"),
}
SERIES = ("blue", "orange", "green", "purple")

INK, MUTED, GRID, PAPER, BLUE, ORANGE, GREEN, PURPLE = (color.light for color in COLORS.values())
WITH_BN, WITHOUT_BN = BLUE, ORANGE


def use() -> None:
    """Set the book's style; in a notebook, also make every figure a reproducible SVG."""
    import matplotlib as mpl
    from matplotlib.rcsetup import cycler

    mpl.rcParams.update(
        {
            "figure.figsize": (6.4, 3.6),  # inches
            "figure.constrained_layout.use": True,
            "figure.facecolor": PAPER,
            "savefig.facecolor": PAPER,
            "axes.facecolor": PAPER,
            "axes.edgecolor": MUTED,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.prop_cycle": cycler(color=[COLORS[name].light for name in SERIES]),
            "grid.color": GRID,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "patch.edgecolor": INK,
            "text.color": INK,
            "xtick.color": MUTED,
            "xtick.labelcolor": INK,
            "ytick.color": MUTED,
            "ytick.labelcolor": INK,
            "svg.fonttype": "none",  # text stays text: searchable, and in the page's font
            "svg.hashsalt": "bnlib",  # the same ids on every run
        }
    )
    ipython = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if ipython is not None:
        # The backend must be active first: its own start would set the format back to PNG.
        import matplotlib.pyplot  # noqa: F401
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        nothing = dict.fromkeys(["Creator", "Date", "Format", "Type"])
        set_matplotlib_formats("svg", metadata=nothing)


def band(ax: Axes, x: ArrayLike, runs: ArrayLike, label: str, color: str) -> Line2D:
    """Draw a curve over several runs: the median as a line, from minimum to maximum as a band.

    Args:
        ax: the axes to draw on.
        x: (points,) the position of each point, such as the training step.
        runs: (runs, points) one row for each run, such as one for each seed.
        label: the curve's name in the legend.
        color: the color of line and band, such as `WITH_BN`.

    Returns:
        The line of the median.

    Raises:
        ValueError: if runs is not two-dimensional or does not have one column for each point.
    """
    x, runs = np.asarray(x), np.asarray(runs)
    if x.ndim != 1 or runs.ndim != 2 or runs.shape[1] != len(x):
        raise ValueError(
            "x and runs must have the shapes (points,) and (runs, points), "
            f"but they have {x.shape} and {runs.shape}"
        )
    (line,) = ax.plot(x, np.median(runs, axis=0), color=color, label=label)
    ax.fill_between(x, runs.min(axis=0), runs.max(axis=0), color=color, alpha=0.2, linewidth=0)
    return line
