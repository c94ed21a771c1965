"""Answers to the exercises of "Where does it break?", as readers may write them."""

import numpy as np

import bnlib


def two_by_the_closed_form(x, dy, eps):
    _, cache = bnlib.batch_norm_train(x, eps=eps)
    return bnlib.batch_norm_backward(dy, cache)[0]


def two_by_the_jacobian(x, dy, eps):
    dx = np.zeros_like(x)
    for column in range(x.shape[1]):
        d = (x[0, column] - x[1, column]) / 2
        slope = eps / np.sqrt(d * d + eps) ** 3
        dx[:, column] = slope / 2 * np.array([[1, -1], [-1, 1]]) @ dy[:, column]
    return dx


def ghosts_by_reshape(x, size, eps):
    def normalized(parts):
        centered = parts - parts.mean(1, keepdims=True)
        return centered / np.sqrt((centered**2).mean(1, keepdims=True) + eps)

    whole = len(x) // size * size
    first = normalized(x[:whole].reshape(-1, size, x.shape[1])).reshape(whole, -1)
    rest = [normalized(x[None, whole:])[0]] if whole < len(x) else []
    return np.concatenate([first, *rest])


def ghosts_by_labels(x, size, eps):
    part = np.arange(len(x)) // size
    counts = np.bincount(part)[:, None]
    member = np.eye(len(counts))[part]
    mean = member.T @ x / counts
    var = member.T @ (x - mean[part]) ** 2 / counts
    return (x - mean[part]) / np.sqrt(var[part] + eps)


def error_step_by_step(std, m, k, momentum):
    variance = np.zeros_like(std)
    for size in [m] * 400 + [k]:
        variance = (1 - momentum) ** 2 * variance + momentum**2 * std**2 / size
    return variance**0.5


def error_by_weights(std, m, k, momentum):
    weights = momentum * (1 - momentum) ** np.arange(400)
    return np.linalg.norm(weights / np.sqrt([k] + [m] * 399)) * std


def entropy_by_the_softmax_jacobian(logits):
    rows = []
    for z in logits:
        log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
        p = np.exp(log_p)
        rows.append((np.diag(p) - np.outer(p, p)) @ -(log_p + 1))
    return np.array(rows) / len(logits)


def entropy_by_logaddexp(logits):
    log_p = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
    p = np.exp(log_p)
    mean = np.einsum("nk,nk->n", p, log_p)
    return p * (mean[:, None] - log_p) / logits.shape[0]


def entropy_of(logits, log_p_from=None, of_mean=False):
    z = logits - logits.max(axis=1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    log_p = np.log(p + 1e-6) if log_p_from == "p" else np.log(np.maximum(p, 1e-300))
    if of_mean:  # the entropy of the average prediction
        mean = p.mean(axis=0)
        dp = -(np.log(mean) + 1) / len(p)
        return p * (dp - (p * dp).sum(axis=1, keepdims=True))
    return -p * (log_p - (p * log_p).sum(axis=1, keepdims=True)) / len(p)


ANSWERS = {
    "two-examples": {
        "right": {
            "the closed form": two_by_the_closed_form,
            "by the Jacobian": two_by_the_jacobian,
            "from ±1": lambda x, dy, eps: (
                np.array([[1], [-1]])
                * (np.diff(dy, axis=0) / -2)
                * eps
                / (np.diff(x, axis=0) ** 2 / 4 + eps) ** (3 / 2)
            ),
        },
        "wrong": {
            "without the projection": lambda x, dy, eps: dy / np.sqrt(x.var(0) + eps),
            "the mean is taken out, and x̂ is not": lambda x, dy, eps: (
                (dy - dy.mean(0)) / np.sqrt(x.var(0) + eps)
            ),
            "the unbiased variance": lambda x, dy, eps: (
                (dy - dy.mean(0)) * eps / (x.var(0, ddof=1) + eps) ** 1.5
            ),
            "nothing passes": lambda x, dy, eps: np.zeros_like(x),
        },
    },
    "ghost-batches": {
        "right": {
            "by a reshape": ghosts_by_reshape,
            "by labels of the parts": ghosts_by_labels,
            "by the package": lambda x, size, eps: np.concatenate(
                [
                    bnlib.batch_norm_train(x[i : i + size], eps=eps)[0]
                    for i in range(0, len(x), size)
                ]
            ),
        },
        "wrong": {
            "every so many examples, not neighbors": lambda x, size, eps: ghosts_by_labels(
                x.reshape(len(x), -1)[np.argsort(np.arange(len(x)) % 2, kind="stable")], size, eps
            ),
            "the last part joins the one before": lambda x, size, eps: np.concatenate(
                [
                    ghosts_by_labels(part, len(part), eps)
                    for part in np.split(x, range(size, len(x) - size + 1, size)[:-1])
                ]
            ),
            "the last part is normalized with the first": lambda x, size, eps: np.concatenate(
                [
                    ghosts_by_labels(x[: len(x) // size * size], size, eps),
                    (x[len(x) // size * size :] - x[:size].mean(0))
                    / np.sqrt(x[:size].var(0) + eps),
                ]
            ),
        },
    },
    "last-batch-error": {
        "right": {
            "step by step": error_step_by_step,
            "by the weights": error_by_weights,
            "one line": lambda std, m, k, momentum: (
                std
                * momentum
                * np.sqrt((1 - momentum) ** 2 / (1 - (1 - momentum) ** 2) / m + 1 / k)
            ),
        },
        "wrong": {
            "standard errors add up": lambda std, m, k, momentum: (
                std
                * ((1 - momentum) * np.sqrt(momentum / (2 - momentum) / m) + momentum / np.sqrt(k))
            ),
            "the whole memory is the last batch's": lambda std, m, k, momentum: (
                std * np.sqrt(momentum / (2 - momentum) / k)
            ),
            "the variance of the feature for its deviation": lambda std, m, k, momentum: (
                std * error_by_weights(std, m, k, momentum)
            ),
        },
    },
    "entropy-gradient": {
        "right": {
            "by the Jacobian of the softmax": entropy_by_the_softmax_jacobian,
            "by logaddexp": entropy_by_logaddexp,
            "with a limited logarithm": entropy_of,
        },
        "wrong": {
            "log(p + 10⁻⁶)": lambda logits: entropy_of(logits, log_p_from="p"),
            "the entropy of the mean prediction": lambda logits: entropy_of(logits, of_mean=True),
            "in bits": lambda logits: entropy_of(logits) / np.log(2),
        },
    },
}
