"""Mini-batches on which plain formulas lose their digits: for the tests and the benchmarks."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Case:
    """Arrays in the dtype of x, float32 for the parameters of 16 bits.

    Those of bfloat16, which NumPy lacks, are float32, and bfloat16 can hold them. A case without dy
    is for inference alone.
    """

    x: np.ndarray
    dy: np.ndarray | None
    gamma: np.ndarray | None
    beta: np.ndarray | None
    eps: float = 1e-5
    dtype: str = "float32"


def to_dtype(v: np.ndarray, dtype: str) -> np.ndarray:
    """v rounded; what the dtype cannot hold becomes its largest number."""
    if dtype == "bfloat16":
        import torch

        largest = torch.finfo(torch.bfloat16).max
        return torch.tensor(v.clip(-largest, largest)).bfloat16().float().numpy()
    info = np.finfo(dtype)
    return v.clip(float(info.min), float(info.max)).astype(dtype)


LAYOUTS = {
    "contiguous": np.ascontiguousarray,
    "Fortran order": np.asfortranarray,
    "channels last": lambda v: np.moveaxis(np.ascontiguousarray(np.moveaxis(v, 1, -1)), -1, 1),
    "transposed": lambda v: v.swapaxes(0, -1).copy().swapaxes(0, -1),
    "every other row": lambda v: np.repeat(v, 2, axis=0)[::2],
    "every other value": lambda v: np.repeat(v, 2, axis=-1)[..., ::2],
    "cut out": lambda v: np.pad(v, 1)[tuple(slice(1, -1) for _ in v.shape)],
    "backward": lambda v: v[::-1, ::-1].copy()[::-1, ::-1],
    "read only": lambda v: np.broadcast_to(np.ascontiguousarray(v), v.shape),
}
SHAPES = [(2, 1), (7, 3), (65, 4), (2053, 5), (2, 515), (4, 3, 5), (1, 3, 101), (5, 2, 67)]
SHAPES += [(5, 4, 1, 1), (2, 13, 5, 3), (1, 3, 70, 70), (2, 3, 2, 3, 2), (523, 2, 3, 5)]
# of x, dy, gamma; |gamma| / std · |dy| stays within float32
MAGNITUDES = [(1e30, 1e30, 1), (1e30, 1e-30, 1), (1, 3e37, 1), (1, 1e-30, 1), (1e-30, 1e-30, 1e30)]
MAGNITUDES += [(1e6, 1e39, 1), (1e38, 1, 1e-30), (1e-38, 1e-38, 1), (1e20, 1e20, 1e30)]
MAGNITUDES += [(1e-24, 1e-16, 1)]
ROWS, IMAGES = (256, 64), (16, 16, 14, 14)


@functools.cache
def cases() -> dict[str, Case]:
    """The hard cases by name."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal
    found = recorded(rng)

    def add(name: str, x: Any, dy: Any = None, layout: str = "", **options: Any) -> None:
        x = np.asarray(x, np.float64)
        found[name] = case(x, normal(x.shape) if dy is None else dy, layout, **options)

    # Sums of many values, and sums whose roundings go one way
    add("a million positions, mean 10", 10 + normal((1, 1, 1000, 1000)))
    for name, x in {
        "two values for long": np.tile(np.repeat([2.0516555, 0.20599097], 256), (1, 5, 4)),
        "images of two values": np.where(normal((4, 8, 64, 64)) > 0, 2.9, 0.9),
        "small images of two values": np.where(normal((8, 8, 28, 28)) > 0, 2.9, 0.9),
        "rows of two values": np.where(normal((512, 512)) > 0, 2.9, 0.9),
        "a pattern of two values": np.tile(  # found by search: partial sums that round alike
            [[float(bit) * 1.6930594] * 2048 for bit in "10001111100101111110011011010101"], (4, 1)
        ),
        "one row different": np.full((77, 1538), 1.7) + (np.arange(77) == 3)[:, None],
    }.items():
        add(name, x, np.where(x > 1.8, 0.1, -0.1))
        add(f"{name}, dy of one value", x, np.full(x.shape, 0.1), gamma=None, beta=None)

    # Means that are far away, and variances that are small, also beside eps
    add("first value of 1e6", normal(ROWS) + 1e6 * (np.arange(256) == 0)[:, None])
    off = 1e4 + 2 * normal((2100, 2))
    off[0] = 2e15, -3e38
    add("first value 1e15 standard deviations off", off)
    off = np.full((300, 2), -3.2e38)
    off[0] = 3.2e38
    add("differences that float32 cannot hold", off)
    add("one channel far off", normal(ROWS) + 1e5 * (np.arange(64) == 7))
    add("images of pixels", rng.integers(0, 256, (8, 3, 40, 40)) / 255)
    add("images, mean 1.9", 1.9 + normal((4, 8, 64, 64)))
    add("images, mean 1e4, std 1e-2", 1e4 + 1e-2 * normal(IMAGES))
    add("std 1e-4", 1e-4 * normal((500, 3)))
    add("mean 1e-3, std 1e-7", 1e-3 + 1e-7 * normal((1024, 64)))
    add("mean 1e22, std 1e20", 1e22 + 1e20 * normal(ROWS))
    add("mean 1e30, std 1e27", 1e30 + 1e27 * normal(ROWS))
    add("mean 1e-30, std 1e-33", 1e-30 + 1e-33 * normal(ROWS), eps=1e-70)
    add("std 1e-15, eps 1e-40", 1e-15 * normal(ROWS), eps=1e-40)
    ulps = 1 + 1.2e-7 * rng.integers(-3, 4, (200, 3))
    add("mean 1e-9, a few roundings apart", 1e-9 * ulps, eps=1e-12)
    ulps = 1 + 1e-7 * rng.choice([-1, 1], (1, 4, 4096))
    add("mean 1e7, a rounding apart", 1e8 / 7 * ulps, eps=1e-12)
    constants = np.array([1e4 / 3, -3.1e38, 0, 1e-41, 1, 1e30])[:, None]
    add("constants", np.broadcast_to(constants, (3, 6, 101)))
    add("channels of zeros", np.maximum(normal((64, 4)), 0) * [1, 0, 1e20, 1])
    repeated = np.broadcast_to(to_dtype(3 + normal((1, 3, 1)), "float32"), (40, 3, 9))
    add("one value in memory", repeated)
    found["one value in memory"].x = repeated

    # Every magnitude
    for i, scales in enumerate(MAGNITUDES):
        shape, eps = ((130, 7), 1e-5) if i % 2 else ((3, 7, 30), 1e-12)
        for far in 0, 3:
            x = 2 * normal(shape) + far
            x, dy = x / abs(x).max() * scales[0], normal(shape) * scales[1]
            x[:, 3] = x[:1, 3].flat[0]
            gamma, beta = scales[2] * rng.uniform(0.5, 2, 7), scales[2] * normal(7)
            name = "x of {:g}, dy of {:g}, gamma of {:g}".format(*scales)
            add(name + ", far" * bool(far), x, dy, gamma=gamma, beta=beta, eps=eps)
    for name, shape in ("", ROWS), (", images", IMAGES):
        kinds = [0, 1e4, 1e6], [1, 0, 1e-20, 1e-30, 1e20, 1e30, 1e-3]
        means, stds = (np.resize(v, shape[1]).reshape(-1, *[1] * (len(shape) - 2)) for v in kinds)
        add(f"channels of every kind{name}", means * np.maximum(stds, 1) + stds * normal(shape))

    # Every dtype, shape, layout and parameter
    add("float64", 3 + 2 * normal(ROWS), dtype="float64")
    add("float64 images, mean 1e4", 1e4 + normal((4, 3, 5, 6)), dtype="float64")
    outlier = normal((50_000, 1))
    outlier[0] = 1e6
    add("float64, first value of 1e6", outlier, dtype="float64")
    add("float64, constant 0.1", np.full((11, 1, 3), 0.1), eps=1e-40, dtype="float64")
    add("float16", 3 + 2 * normal(ROWS), dtype="float16")
    gamma = 1e3 ** (np.arange(64) % 2)
    add("bfloat16, gamma of 1e3", normal(ROWS), gamma=gamma, beta=0 * gamma, dtype="bfloat16")
    for shape in SHAPES:
        add(f"shape {shape}", 3 + 2 * normal(shape))
    for layout in LAYOUTS:
        for name, shape in ("rows", (33, 6)), ("images", (4, 3, 5, 6)):
            add(f"{layout}, {name}", 1e2 + normal(shape), layout=layout)
    for given in "gamma", "beta", "nothing":
        none = dict.fromkeys({"gamma", "beta"} - {given})
        add(f"{given} alone", 3 + normal((40, 3, 5)), **none)
    return found


def recorded(rng: np.random.Generator) -> dict[str, Case]:
    """Those of which bnlib/records/accuracy.json tells, by the names that they have there."""
    normal = rng.standard_normal

    def drawn(x: np.ndarray, **options: Any) -> Case:
        return case(x, normal(x.shape), **options)

    return {
        "standard normal": drawn(normal(ROWS)),
        "mean 1e2": drawn(1e2 + normal(ROWS)),
        "mean 1e4": drawn(1e4 + normal(ROWS)),
        "mean 1e4, std 1e-2": drawn(1e4 + 1e-2 * normal(ROWS)),
        "mean 1e6": drawn(1e6 + normal(ROWS)),
        "a million rows": drawn(normal((1_000_000, 3))),
        "constant 10000/3": drawn(np.full(ROWS, 10000 / 3)),
        "mean 1, std 1e-4, eps 1e-12": drawn(1 + 1e-4 * normal(ROWS), eps=1e-12),
        "x of 1e20": drawn(1e20 * normal(ROWS)),
        "x up to the largest float32": drawn(rng.choice([-3.4e38, 3.4e38], ROWS)),
        "x below the normal numbers, 1e-40": drawn(1e-40 * normal(ROWS), eps=1e-30),
        "two rows, mean 1e3, 1e-3 apart": drawn(1e3 + 1e-3 * normal((2, 64))),
        "channels from 1e-20 to 1e20": drawn(np.logspace(-20, 20, 64) * normal(ROWS), eps=1e-30),
        "one value of 1e6": drawn(normal(ROWS) + 1e6 * (np.arange(256) == 7)[:, None]),
        "mean 1e4, dy with mean 1e4": case(1e4 + normal(ROWS), 1e4 + normal(ROWS)),
        "images, mean 1e4": drawn(1e4 + normal(IMAGES)),
        "images, channels last, mean 1e4": case(
            last := 1e4 + np.moveaxis(normal((16, 14, 14, 16)), -1, 1), last - 1e4
        ),
        "float16 images, mean 1e3": drawn(1e3 + normal(IMAGES), dtype="float16"),
        "bfloat16 images, mean 1e2": drawn(1e2 + normal(IMAGES), dtype="bfloat16"),
        "inference, mean 1e4, std 1e-2": case(1e4 + 1e-2 * normal(ROWS), None),
        "inference, images, mean 1e4": case(1e4 + normal(IMAGES), None),
    }


def case(
    x: np.ndarray, dy: np.ndarray | None, layout: str = "", dtype: str = "float32", **options: Any
) -> Case:
    """x, dy and the parameters that are given, from float64; parameters that are not, are drawn."""
    drawn = np.random.default_rng(1)
    lay = LAYOUTS[layout] if layout else np.asarray
    x, dy = (None if v is None else lay(to_dtype(v, dtype)) for v in (x, dy))
    wide = "float64" if dtype == "float64" else "float32"
    for name in "gamma", "beta":
        v = options.get(name, drawn.standard_normal(x.shape[1], np.float32))
        options[name] = None if v is None else to_dtype(np.float64(v), wide)
    return Case(x, dy, dtype=dtype, **options)
