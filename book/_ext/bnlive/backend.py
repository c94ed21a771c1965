"""Matplotlib's backend in the page: `plt.show()` puts the figures into the cell's output."""

from matplotlib.backends.backend_svg import FigureCanvasSVG as FigureCanvas

from bnlive.run import show_figures

__all__ = ["FigureCanvas", "show"]


def show(*, block: bool | None = None) -> None:
    show_figures()
