"""The exercises of the chapter that asks why BatchNorm works."""

import numpy as np

from bnlib.exercises.judge import Array, Generator, Inputs, exercise

_REASONS = 'the chapter "Why does it work?"'


def _outputs(rng: Generator) -> Inputs:
    """Outputs of a ReLU with a common part, for more images than units."""
    m, c = rng.integers(8, 14), rng.integers(3, 7)
    return {"h": np.maximum(rng.normal(0.7, 1, (m, c)) * rng.uniform(0.5, 2, c), 0)}


@exercise(
    see=f'"What does it do to a deep network, before any training?" in {_REASONS}',
    inputs=_outputs,
    outputs=["r"],
    properties={
        "when all images have the same outputs, r must be 1": lambda answer, h: (
            answer(h=np.tile(h.max(axis=0), (5, 1))),
            1,
        ),
        "for four equal, perpendicular directions r must be 4": lambda answer, h: (
            answer(h=3 * np.eye(6, 4)),
            4,
        ),
        "with all outputs a hundred times as large r must be the same": lambda answer, h: (
            answer(h=100 * h),
            answer(),
        ),
    },
    mistakes={
        "the singular values are not squared": (" ** 2", ""),
        "the mean of each unit is subtracted first": ("svd(h,", "svd(h - h.mean(axis=0),"),
        "the singular values are squared twice over": (" ** 2", " ** 4"),
        "the quotient is upside down": (
            "power.sum() * power.sum() / np.sum(power * power)",
            "np.sum(power * power) / (power.sum() * power.sum())",
        ),
        "the largest direction alone is taken as the measure": (
            "power.sum() * power.sum() / np.sum(power * power)",
            "power.sum() / power.max()",
        ),
    },
)
def effective_rank(h: Array) -> float:
    power = np.linalg.svd(h, compute_uv=False) ** 2
    return power.sum() * power.sum() / np.sum(power * power)


def _symmetric(rng: Generator) -> Inputs:
    """A matrix whose eigenvalue of largest size is negative, and another of nearly that size."""
    n = int(rng.integers(4, 7))
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    values = np.append([-5.0, 4.6], rng.uniform(-3, 3, n - 2)) * rng.uniform(0.5, 20)
    hessian = basis * values @ basis.T
    return {
        "hessian": (hessian + hessian.T) / 2,
        "v": rng.normal(size=n) + 2 * basis[:, 0],
        "iterations": int(rng.integers(3, 6)),
    }


@exercise(
    see=f'"How sharp is it?" in {_REASONS}',
    inputs=_symmetric,
    outputs=["the eigenvalue"],
    properties={
        "after many iterations it must be the eigenvalue that is largest in size": (
            lambda answer, hessian, **_: (
                answer(iterations=200),
                max(np.linalg.eigvalsh(hessian), key=abs),
            )
        ),
        "from a vector 1,000 times as long it must be the same": lambda answer, v, **_: (
            answer(v=1000 * v),
            answer(),
        ),
    },
    mistakes={
        "the length of the last product is returned, which has no sign": (
            "v @ hessian @ v",
            "np.linalg.norm(hessian @ v)",
        ),
        "the vector is never divided by its length": (" / np.linalg.norm(product)", ""),
        "one multiplication is missing": ("range(iterations)", "range(iterations - 1)"),
        "there is one multiplication too many": ("range(iterations)", "range(iterations + 1)"),
        "the inverse is iterated, which finds the eigenvalue that is smallest in size": (
            "product = hessian @ v",
            "product = np.linalg.solve(hessian, v)",
        ),
    },
)
def power_iteration(hessian: Array, v: Array, iterations: int) -> float:
    v = v / np.sqrt(v @ v)
    for _ in range(iterations):
        product = hessian @ v
        v = product / np.linalg.norm(product)
    return v @ hessian @ v


def _nonlinearity(rng: Generator) -> Inputs:
    """Values and slopes of a leaky ReLU that does not pass through 0, for a sample."""
    x_hat, slope = rng.normal(size=50), rng.uniform(0.05, 0.4)
    return {
        "a": np.where(x_hat > 0, x_hat, slope * x_hat) + rng.uniform(0.5, 1),
        "slope": np.where(x_hat > 0, 1, slope),
    }


@exercise(
    see=f'"What does it do to a deep network, before any training?" in {_REASONS}',
    inputs=_nonlinearity,
    outputs=["the factor"],
    properties={
        "for f(x̂) = 3x̂ it must be 1 over the deviation of x̂": lambda answer, a, slope: (
            answer(a=3 * a, slope=3 + 0 * slope),
            1 / a.std(),
        ),
        "for 2·f it must be that for f": lambda answer, a, slope: (
            answer(a=2 * a, slope=2 * slope),
            answer(),
        ),
    },
    mistakes={
        "the power is returned, not the size": ("np.sqrt", ""),
        "it is divided by the mean square, not by the variance": ("a.var()", "np.mean(a**2)"),
        "the mean slope is squared, not the slopes": ("np.mean(slope**2)", "np.mean(slope) ** 2"),
        "the variance is divided by K − 1": ("a.var()", "a.var(ddof=1)"),
        "it is divided by the standard deviation, not by the variance": ("a.var()", "a.std()"),
    },
)
def growth_factor(a: Array, slope: Array) -> float:
    return np.sqrt(np.mean(slope**2) / a.var())


def _three_arms(rng: Generator) -> Inputs:
    """Five seeds at four rates. The best median, best mean and best single run are elsewhere."""

    def arm(level: float, places: list[int]) -> Array:
        at = level + rng.uniform(0, 0.004, (5, 4))
        best, unlucky, lucky, _ = places
        at[:, best] += 0.02
        at[0, best] -= 0.2  # so that its mean is low
        at[:, unlucky] += 0.005
        at[:2, lucky] += 0.05 - 0.02
        return at

    order = [list(rng.permutation(4)) for _ in range(3)]
    order[1] = order[0][1:] + order[0][:1]  # another rate is the best
    arms = arm(0.90, order[0]), arm(0.94, order[1]), arm(0.92, order[2])
    return dict(zip(("plain", "batch_norm", "other"), arms, strict=True))


def _best(accuracy: Array) -> Array:
    return accuracy[:, np.median(accuracy, axis=0).argmax()]


@exercise(
    see=f'"What is left when others do its work?" in {_REASONS}',
    inputs=_three_arms,
    outputs=["the share"],
    properties={
        "the plain network must have the share 0": lambda answer, plain, **_: (
            answer(other=plain),
            0,
        ),
        "BatchNorm must have the share 1": lambda answer, batch_norm, **_: (
            answer(other=batch_norm),
            1,
        ),
    },
    mistakes={
        "each seed takes its own best rate": lambda plain, batch_norm, other: (
            (other.max(1) - plain.max(1)) / (batch_norm.max(1) - plain.max(1))
        ),
        "all arms are judged at the plain network's best rate": lambda plain, batch_norm, other: (
            (other - plain)[:, (at := np.median(plain, axis=0).argmax())]
            / (batch_norm - plain)[:, at]
        ),
        "the best mean is taken for the best median": lambda plain, batch_norm, other: (
            ((p := [a[:, a.mean(0).argmax()] for a in (plain, batch_norm, other)])[2] - p[0])
            / (p[1] - p[0])
        ),
        "it is the lead over BatchNorm that is divided": (
            "_best(other) - _best(plain)",
            "_best(other) - _best(batch_norm)",
        ),
    },
)
def share_of_gain(plain: Array, batch_norm: Array, other: Array) -> Array:
    gain = _best(batch_norm) - _best(plain)
    return (_best(other) - _best(plain)) / gain
