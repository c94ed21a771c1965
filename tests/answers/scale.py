"""Answers to the exercises of the chapter on weight decay, as readers may write them."""

import math

import numpy as np


def lengths_by_squares(first, lr, weight_decay, gradient):
    squares = np.empty(len(gradient) + 1)
    squares[0] = first * first
    for t, size in enumerate(gradient):
        squares[t + 1] = (1 - lr * weight_decay) ** 2 * squares[t] + lr**2 * size**2 / squares[t]
    return squares**0.5


def lengths_in_the_plane(first, lr, weight_decay, gradient):
    w = complex(first)
    found = [abs(w)]
    for size in gradient:
        across = 1j * w / abs(w)
        w = w - lr * (size / abs(w) * across + weight_decay * w)
        found.append(abs(w))
    return found


def lengths_by_recursion(first, lr, weight_decay, gradient):
    if len(gradient) == 0:
        return [first]
    second = math.hypot(first - lr * weight_decay * first, lr * gradient[0] / first)
    return [first, *lengths_by_recursion(second, lr, weight_decay, gradient[1:])]


def lengths_of(first, lr, weight_decay, gradient, follow):
    found = [first]
    for size in gradient:
        found.append(follow(found[-1], lr * weight_decay, lr * size / found[-1], lr))
    return np.array(found)


def turns_by_sums(lr, weight_decay, momentum):
    """With v of independent gradients, by its series: the squares add, or the steps do."""
    powers = momentum ** np.arange(3000)
    squared = 2 * lr * weight_decay * (1 - momentum)
    return math.sqrt(squared * (powers**2).sum()), math.sqrt(squared) * powers.sum()


ANSWERS = {
    "same-training": {
        "right": {
            "as a list": lambda lr, weight_decay, eps, a: [
                lr * a * a,
                weight_decay / a / a,
                eps * a * a,
            ],
            "by powers": lambda lr, weight_decay, eps, a: tuple(
                np.array([lr, weight_decay, eps]) * a ** np.array([2.0, -2.0, 2.0])
            ),
            "by logarithms": lambda lr, weight_decay, eps, a: list(
                np.exp(np.log([lr, weight_decay, eps]) + 2 * np.log(a) * np.array([1, -1, 1]))
            ),
        },
        "wrong": {
            "the decay stays": lambda lr, weight_decay, eps, a: (
                a**2 * lr,
                weight_decay,
                a**2 * eps,
            ),
            "the decay shrinks as the length grows": lambda lr, weight_decay, eps, a: (
                a**2 * lr,
                weight_decay / a,
                a**2 * eps,
            ),
            "ε grows as the length does": lambda lr, weight_decay, eps, a: (
                a**2 * lr,
                weight_decay / a**2,
                a * eps,
            ),
        },
    },
    "equilibrium-length": {
        "right": {
            "two square roots": lambda lr, weight_decay, gradient: np.sqrt(
                gradient * np.sqrt(lr / weight_decay / 2)
            ),
            "unit by unit": lambda lr, weight_decay, gradient: [
                math.sqrt(g) * (lr / (2 * weight_decay)) ** 0.25 for g in gradient
            ],
            "from the effective rate": lambda lr, weight_decay, gradient: np.sqrt(
                lr / (np.sqrt(2 * lr * weight_decay) / gradient)
            ),
        },
        "wrong": {
            "η²": lambda lr, weight_decay, gradient: (
                (lr**2 * gradient**2 / (2 * weight_decay)) ** 0.25
            ),
            "the product ηλ": lambda lr, weight_decay, gradient: (
                (gradient**2 / (2 * lr * weight_decay)) ** 0.25
            ),
            "one length for all units": lambda lr, weight_decay, gradient: np.full(
                len(gradient), (lr * (gradient**2).mean() / (2 * weight_decay)) ** 0.25
            ),
        },
    },
    "decayed-lengths": {
        "right": {
            "by squares": lengths_by_squares,
            "in the plane": lengths_in_the_plane,
            "by recursion": lengths_by_recursion,
        },
        "wrong": {
            "the decay comes after the step": lambda first, lr, weight_decay, gradient: lengths_of(
                first, lr, weight_decay, gradient, lambda r, d, s, lr: (1 - d) * np.hypot(r, s)
            ),
            "the square of the decay is dropped": lambda first, lr, weight_decay, gradient: (
                lengths_of(
                    first,
                    lr,
                    weight_decay,
                    gradient,
                    lambda r, d, s, lr: np.sqrt((1 - 2 * d) * r**2 + s**2),
                )
            ),
            "the penalty is λ‖w‖², not half of it": lambda first, lr, weight_decay, gradient: (
                lengths_of(
                    first,
                    lr,
                    weight_decay,
                    gradient,
                    lambda r, d, s, lr: np.hypot((1 - 2 * d) * r, s),
                )
            ),
        },
    },
    "turns": {
        "right": {
            "by sums": turns_by_sums,
            "by complex roots": lambda lr, weight_decay, momentum: [
                abs(complex(2 * lr * weight_decay / (1 + sign * momentum)) ** 0.5)
                for sign in (1, -1)
            ],
            "one from the other": lambda lr, weight_decay, momentum: (
                (run := math.sqrt(2 * lr * weight_decay / (1 - momentum)))
                * math.sqrt((1 - momentum) / (1 + momentum)),
                run,
            ),
        },
        "wrong": {
            "no momentum in the step": lambda lr, weight_decay, momentum: (
                math.sqrt(2 * lr * weight_decay),
                math.sqrt(2 * lr * weight_decay / (1 - momentum)),
            ),
            "the rate of a long run is taken twice": lambda lr, weight_decay, momentum: (
                math.sqrt(2 * lr * weight_decay / (1 + momentum)),
                math.sqrt(2 * lr * weight_decay) / (1 - momentum),
            ),
            "1 − μ²": lambda lr, weight_decay, momentum: (
                math.sqrt(2 * lr * weight_decay / (1 - momentum**2)),
                math.sqrt(2 * lr * weight_decay / (1 - momentum)),
            ),
        },
    },
}
