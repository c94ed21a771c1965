"""The palette keeps its promises, and a figure is the same SVG on every run."""

import io
import itertools
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bnlib import figures
from bnlib.figures import COLORS, SERIES

# Viénot's and Machado's simulation of the three kinds of dichromacy, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
LINEAR_TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
)


def linear(hex_value: str) -> np.ndarray:
    """The color as linear RGB."""
    value = np.array([int(hex_value[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB, where equal distances look about equally large."""
    xyz = LINEAR_TO_XYZ @ rgb / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""
    darker, lighter = sorted(LINEAR_TO_XYZ[1] @ linear(color) for color in (one, other))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_colors_stand_out_from_the_paper(mode: str) -> None:
    paper = getattr(COLORS["paper"], mode)
    for name in SERIES:
        assert contrast(getattr(COLORS[name], mode), paper) >= 4, name
    for name in ("ink", "muted"):
        assert contrast(getattr(COLORS[name], mode), paper) >= 4.5, name


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
def test_series_colors_stay_apart(mode: str, sight: str) -> None:
    seen = {
        name: lab(np.clip(SIGHT[sight] @ linear(getattr(COLORS[name], mode)), 0, 1))
        for name in SERIES
    }
    for one, other in itertools.combinations(SERIES, 2):
        assert np.linalg.norm(seen[one] - seen[other]) >= 20, (one, other)


def test_every_light_color_names_one_variable() -> None:
    light = [color.light.lower() for color in COLORS.values()]
    assert len(set(light)) == len(light)


def draw() -> str:
    figures.use()
    fig, ax = plt.subplots()
    figures.band(ax, [0, 1, 2], [[1, 5, 3], [2, 4, 9], [0, 6, 6]], "with BN", figures.WITH_BN)
    ax.set(title="Loss", xlabel="step")
    ax.legend()
    file = io.StringIO()
    fig.savefig(file, format="svg", metadata={"Date": None})
    plt.close(fig)
    return file.getvalue()


def test_a_figure_is_reproducible_and_its_text_is_text() -> None:
    svg = draw()
    assert svg == draw()
    assert ">with BN</text>" in svg


def test_band_is_median_and_range() -> None:
    _, ax = plt.subplots()
    line = figures.band(ax, [0, 1], [[1, 5], [2, 4], [6, 0]], "runs", figures.GREEN)
    (area,) = ax.collections
    corners = area.get_paths()[0].vertices
    plt.close()
    np.testing.assert_array_equal(line.get_ydata(), [2, 4])
    assert [tuple(np.sort(corners[corners[:, 0] == x, 1])[[0, -1]]) for x in (0, 1)] == [
        (1, 6),
        (0, 5),
    ]


@pytest.mark.parametrize("runs", [[1, 2], [[1, 2, 3]], [[[1, 2]]]])
def test_band_names_the_wrong_shape(runs: list) -> None:
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match=r"\(2,\) and \("):
        figures.band(ax, [0, 1], runs, "runs", figures.GREEN)
    plt.close()


def test_use_outside_a_notebook_is_silent() -> None:
    code = "from bnlib import figures; figures.use(); import sys; print('IPython' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
