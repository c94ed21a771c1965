"""Layers for small networks: each has a forward and a backward pass, written out.

`forward` keeps what `backward` needs; `backward` takes dy, the derivative of the loss with respect
to the output, adds to the gradients of its parameters, and returns dx. Each backward pass has a
forward pass of its own before it: a layer that stands at two places of a network raises.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bnlib import norms
from bnlib._checks import check_eps
from bnlib._messages import short
from bnlib.batchnorm import Cache, batch_norm_backward, batch_norm_inference, batch_norm_train
from bnlib.conventions import convert
from bnlib.running import RunningStats


class Parameter:
    """An array that is learned, and its gradient.

    Attributes:
        value: the array; an optimizer changes it in place.
        grad: derivative of the loss with respect to value, of the same shape and dtype.
    """

    def __init__(self, value: np.ndarray) -> None:
        self.value = value
        self.grad = np.zeros_like(value)


class Layer:
    """What all layers share: parameters, and a switch between training and inference."""

    training = True
    _kept: tuple[tuple[int, ...], Any] | None = None  # shape of y, and what backward needs

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The output y."""
        raise NotImplementedError

    def backward(self, dy: np.ndarray) -> np.ndarray:
        """dx, from dy; call it at most once after each forward pass."""
        raise NotImplementedError

    def _take(self, dy: np.ndarray) -> Any:
        """What the forward pass kept for the backward pass from dy, which is then gone."""
        if self._kept is None:
            raise RuntimeError(
                f"backward of {type(self).__name__} without a forward pass of its own before it: "
                "it comes once after each, and a layer stands at one place of a network only"
            )
        shape, kept = self._kept
        if dy.shape != shape:
            raise ValueError(f"dy has shape {dy.shape}; expected {shape}, the shape of y")
        self._kept = None
        return kept

    def _forget(self) -> None:
        """Let go of what the forward pass kept, so that a backward pass raises."""
        self._kept = None

    def parameters(self) -> list[Parameter]:
        """The parameters of the layer, none by default."""
        return []

    def train(self, mode: bool = True) -> None:
        """Switch to training: BatchNorm uses the batch's statistics, Dropout drops."""
        self.training = mode

    def eval(self) -> None:
        """Switch to inference: BatchNorm uses its running statistics, Dropout does nothing."""
        self.train(False)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.forward(x)


class _Weighted(Layer):
    """What a linear and a convolution layer share: weights, and the product with rows of inputs."""

    def __init__(
        self,
        shape: tuple[int, ...],
        std: float,
        rng: np.random.Generator,
        bias: bool,
        needs_dx: bool,
        dtype: type,
    ) -> None:
        if not std >= 0:
            raise ValueError(f"std is {std}; expected 0 or more")
        self.weight = Parameter(rng.normal(0, std, shape).astype(dtype))
        self.bias = Parameter(np.zeros(shape[0], dtype)) if bias else None
        self.needs_dx = needs_dx

    def _product(self, rows: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray | None]]:
        """rows Wᵀ + b, (M, outputs), for rows of inputs, (M, inputs); and what backward needs."""
        matrix = self.weight.value.reshape(len(self.weight.value), -1)  # (outputs, inputs), a view
        y: np.ndarray = rows @ matrix.T
        if self.bias is not None:
            y += self.bias.value
        return y, (rows, matrix.copy() if self.needs_dx else None)  # W may change before backward

    def _product_backward(
        self, dy: np.ndarray, rows: np.ndarray, matrix: np.ndarray | None
    ) -> np.ndarray | None:
        """From dy, (M, outputs), the derivatives of the rows, or None where none are needed."""
        self.weight.grad += (dy.T @ rows).reshape(self.weight.value.shape)
        if self.bias is not None:
            self.bias.grad += dy.sum(0, dtype=np.result_type(dy, np.float32))
        return None if matrix is None else dy @ matrix

    def parameters(self) -> list[Parameter]:
        return [self.weight] if self.bias is None else [self.weight, self.bias]


def _not_computed(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A dx of NaN, which takes no memory."""
    return np.broadcast_to(np.array(np.nan, dtype), shape)


class Linear(_Weighted):
    r"""y = x Wᵀ + b.

    Args:
        inputs: number of input features.
        outputs: number of output features.
        std: standard deviation of the Gaussian that W is drawn from; b starts at 0.
        bias: whether there is a b. Before a BatchNorm it has no effect.
        needs_dx: whether `backward` computes dx. A first layer can save that work; what it returns
            then is NaN.
        rng: where W is drawn from.
        dtype: of W and b.

    Attributes:
        weight: W, (outputs, inputs).
        bias: b, (outputs,), or None.

    Raises:
        ValueError: inputs or outputs is not positive, or std is negative.

    Source: chapter "A network from scratch".
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        std: float,
        rng: np.random.Generator,
        bias: bool = True,
        needs_dx: bool = True,
        dtype: type = np.float32,
    ) -> None:
        if inputs < 1 or outputs < 1:
            raise ValueError(f"Linear({inputs}, {outputs}): expected 1 or more of each")
        super().__init__((outputs, inputs), std, rng, bias, needs_dx, dtype)

    def forward(self, x: np.ndarray) -> np.ndarray:
        inputs = self.weight.value.shape[1]
        if x.ndim != 2 or x.shape[1] != inputs:
            raise ValueError(f"x has shape {x.shape}; expected (N, {inputs})")
        y, used = self._product(x)
        self._kept = y.shape, used
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        x, matrix = self._take(dy)
        dx = self._product_backward(dy, x, matrix)
        return _not_computed(x.shape, dy.dtype) if dx is None else dx


class Conv2d(_Weighted):
    r"""A convolution layer, without flipping its kernels, as all frameworks have it.

    .. math:: y_{n,o,i,j} = b_o + \sum_{c,k,l} W_{o,c,k,l}\; x_{n,c,si+k,sj+l}

    A kernel moves on by s positions, the stride. The windows of x become the rows of
    one matrix (im2col); with them it is a linear layer.

    Args:
        inputs: number of input channels C.
        outputs: number of output channels O.
        size: height and width K of the kernels.
        stride: positions s from one window to the next. From H rows come ⌊(H + 2p − K) / s⌋ + 1.
        padding: rows and columns p of zeros put around x.
        std: as in `Linear`, like what follows.
        bias: whether there is a b.
        needs_dx: whether `backward` computes dx.
        rng: where W is drawn from.
        dtype: of W and b.

    Attributes:
        weight: W, (O, C, K, K).
        bias: b, (O,), or None.

    Raises:
        ValueError: inputs, outputs, size or stride is not positive, or padding or std is negative.

    Source: chapter "Convolutional networks on MNIST".
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        std: float,
        rng: np.random.Generator,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        needs_dx: bool = True,
        dtype: type = np.float32,
    ) -> None:
        if min(inputs, outputs, size) < 1:
            raise ValueError(f"Conv2d({inputs}, {outputs}, {size}): expected 1 or more of each")
        if stride < 1:
            raise ValueError(f"stride is {stride}; expected 1 or more")
        if padding < 0:
            raise ValueError(f"padding is {padding}; expected 0 or more")
        super().__init__((outputs, inputs, size, size), std, rng, bias, needs_dx, dtype)
        self.stride, self.padding = stride, padding

    def forward(self, x: np.ndarray) -> np.ndarray:
        outputs, inputs, size, _ = self.weight.value.shape
        smallest = max(1, size - 2 * self.padding)
        if x.ndim != 4 or x.shape[1] != inputs or min(x.shape[2:]) < smallest:
            raise ValueError(
                f"x has shape {x.shape}; expected (N, {inputs}, H, W), H and W at least {smallest}"
            )
        around = [(0, 0), (0, 0), *[(self.padding, self.padding)] * 2]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, around), (size, size), (2, 3))
        windows = windows[:, :, :: self.stride, :: self.stride]  # (N, C, H', W', K, K), a view
        n, _, h, w = windows.shape[:4]
        rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, -1)  # a copy
        y, used = self._product(rows)  # (N·H'·W', O)
        self._kept = (n, outputs, h, w), (x.shape, used)
        return np.ascontiguousarray(y.reshape(n, h, w, outputs).transpose(0, 3, 1, 2))

    def backward(self, dy: np.ndarray) -> np.ndarray:
        x_shape, used = self._take(dy)
        outputs, inputs, size, _ = self.weight.value.shape
        n, _, h, w = dy.shape
        drows = self._product_backward(dy.transpose(0, 2, 3, 1).reshape(-1, outputs), *used)
        if drows is None:
            return _not_computed(x_shape, dy.dtype)
        # Each value of x is in up to K·K windows; what comes back along all of them adds up.
        dwindows = drows.reshape(n, h, w, inputs, size, size).transpose(0, 3, 1, 2, 4, 5)
        s, p, (height, width) = self.stride, self.padding, x_shape[2:]
        dx = np.zeros((n, inputs, height + 2 * p, width + 2 * p), dy.dtype)
        for k, m in np.ndindex(size, size):
            dx[:, :, k : k + s * h : s, m : m + s * w : s] += dwindows[..., k, m]
        return dx[:, :, p : p + height, p : p + width]


class MaxPool2d(Layer):
    """The largest value of each block of size × size positions; dx goes to that position alone.

    Args:
        size: height and width of the blocks, which do not overlap.

    Raises:
        ValueError: size is not positive.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size is {size}; expected 1 or more")
        self.size = size

    def forward(self, x: np.ndarray) -> np.ndarray:
        s = self.size
        if x.ndim != 4 or x.shape[2] % s or x.shape[3] % s:
            raise ValueError(
                f"x has shape {x.shape}; expected (N, C, H, W), H and W multiples of {s}"
            )
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // s, s, w // s, s).transpose(0, 1, 2, 4, 3, 5)
        blocks = blocks.reshape(n, c, h // s, w // s, s * s)
        largest = blocks.argmax(axis=-1)[..., None]  # the first one, where several are equal
        self._kept = largest.shape[:-1], largest
        return np.take_along_axis(blocks, largest, axis=-1)[..., 0]

    def backward(self, dy: np.ndarray) -> np.ndarray:
        largest = self._take(dy)
        n, c, h, w = dy.shape
        s = self.size
        blocks = np.zeros((n, c, h, w, s * s), dy.dtype)
        np.put_along_axis(blocks, largest, dy[..., None], axis=-1)
        blocks = blocks.reshape(n, c, h, w, s, s).transpose(0, 1, 2, 4, 3, 5)
        return blocks.reshape(n, c, h * s, w * s)


class Flatten(Layer):
    """(N, C, H, W) to (N, C·H·W), for a linear layer after convolutions."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        y = x.reshape(len(x), -1)
        self._kept = y.shape, x.shape
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        x_shape = self._take(dy)
        return dy.reshape(x_shape)


class _Normalization(Layer):
    """What all layers that normalize share: gamma and beta, and their gradients."""

    def __init__(self, channels: int, affine: bool, dtype: type) -> None:
        if channels < 1:
            raise ValueError(f"channels is {channels}; expected 1 or more")
        self.channels = channels
        self.gamma = Parameter(np.ones(channels, dtype)) if affine else None
        self.beta = Parameter(np.zeros(channels, dtype)) if affine else None

    def _vectors(self, x: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The values of gamma and beta, if x has their channels."""
        if x.ndim < 2 or x.shape[1] != self.channels:
            raise ValueError(
                f"x has shape {x.shape}; expected (N, {self.channels}) or "
                f"(N, {self.channels}, *spatial)"
            )
        gamma, beta = (None if p is None else p.value for p in (self.gamma, self.beta))
        return gamma, beta

    def _add(self, dgamma: np.ndarray | None, dbeta: np.ndarray | None) -> None:
        for p, gradient in (self.gamma, dgamma), (self.beta, dbeta):
            if p is not None:
                p.grad += gradient

    def parameters(self) -> list[Parameter]:
        return [p for p in (self.gamma, self.beta) if p is not None]


class _Frozen(NamedTuple):
    """What the backward pass of a BatchNorm in inference mode needs, in copies."""

    x: np.ndarray
    mean: np.ndarray
    var: np.ndarray
    gamma: np.ndarray | None
    eps: float


class BatchNorm(_Normalization):
    r"""Batch Normalization of `(N, C)` or `(N, C, *spatial)`, as in `bnlib.batch_norm_train`.

    In training it normalizes with the batch's statistics and follows them; in inference it uses
    what it followed, or the batch's statistics again where it does not follow any. `backward` works
    in both modes: a layer in inference while others train is frozen.

    Args:
        channels: number of channels C.
        eps: added to the variance, in units of x²; positive.
        momentum: weight of a new batch in the running statistics, in [0, 1], or None for the
            average over all batches.
        affine: whether there are gamma, from 1, and beta, from 0.
        track_running_stats: whether to follow the statistics.
        dtype: of gamma and beta.

    Attributes:
        gamma: the learned scale, (C,), or None.
        beta: the learned shift, (C,), or None.
        running: the `RunningStats`, or None.

    Raises:
        ValueError: channels, eps or momentum is not as said above.

    Source: Ioffe & Szegedy 2015, algorithms 1 and 2; chapters "The transform" and "Inference".
    """

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: type = np.float32,
    ) -> None:
        check_eps(eps)
        super().__init__(channels, affine, dtype)
        self.eps = eps
        self.running = RunningStats(channels, momentum) if track_running_stats else None

    def forward(self, x: np.ndarray) -> np.ndarray:
        gamma, beta = self._vectors(x)
        if self.training or self.running is None:
            y, kept = self._normalize(x, gamma, beta)
            self._kept = y.shape, kept
            return y
        mean, var = self.running.mean.copy(), self.running.var.copy()
        y = batch_norm_inference(x, mean, var, gamma, beta, eps=self.eps)
        gamma = None if gamma is None else gamma.copy()  # it may change before the backward pass
        self._kept = y.shape, _Frozen(x, mean, var, gamma, self.eps)
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        kept = self._take(dy)
        frozen = isinstance(kept, _Frozen)
        dx, dgamma, dbeta = self._backward_frozen(dy, *kept) if frozen else self._derive(dy, kept)
        self._add(dgamma, dbeta)
        return dx

    def _normalize(
        self, x: np.ndarray, gamma: np.ndarray | None, beta: np.ndarray | None
    ) -> tuple[np.ndarray, Any]:
        """y by the batch's own statistics, which are followed, and what `_derive` needs."""
        y, cache = batch_norm_train(x, gamma, beta, eps=self.eps)
        self._follow(cache)
        return y, cache

    def _follow(self, cache: Cache) -> None:
        if self.running is not None:
            self.running.update(cache.mean, cache.var, cache.count)

    @staticmethod
    def _derive(dy: np.ndarray, kept: Any) -> tuple[np.ndarray, Any, Any]:
        return batch_norm_backward(dy, kept)

    @staticmethod
    def _backward_frozen(
        dy: np.ndarray,
        x: np.ndarray,
        mean: np.ndarray,
        var: np.ndarray,
        gamma: np.ndarray | None,
        eps: float,
    ) -> tuple[np.ndarray, ...]:
        """With fixed statistics x_hat is linear in x: dx = dy · gamma · inv_std."""
        x_hat = batch_norm_inference(x, mean, var, eps=eps)
        slope = 1 / np.sqrt(var + eps)
        if gamma is not None:
            slope = slope * gamma
        dx = (dy * slope.reshape(-1, *[1] * (x.ndim - 2))).astype(x.dtype)
        others = 0, *range(2, x.ndim)
        dy = dy.astype(np.float64)  # float16 would overflow in the sums
        return dx, (dy * x_hat).sum(others), dy.sum(others)

    def state(self) -> dict[str, Any]:
        """A copy of what the layer has learned and followed, and of what it needs to go on.

        Returns:
            gamma, beta, mean, var, eps, momentum and batches, by these names; None where the layer
            has no such thing. `bnlib.conventions.convert` gives it other frameworks' names.
        """
        gamma, beta = (None if p is None else p.value.copy() for p in (self.gamma, self.beta))
        state: dict[str, Any] = {"gamma": gamma, "beta": beta, "eps": self.eps}
        if self.running is None:
            return {**state, "mean": None, "var": None, "momentum": None, "batches": None}
        return {
            **state,
            "mean": self.running.mean.copy(),
            "var": self.running.var.copy(),
            "momentum": self.running.momentum,
            "batches": self.running.batches,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a state, all of it or, when something is raised, nothing.

        Without gamma, beta or batches they become 1s, 0s and 0, as `bnlib.conventions.convert`
        says. A layer without gamma and beta takes only 1s and 0s for them; one without running
        statistics takes only None for what belongs to them, or nothing.

        Args:
            state: as `state()` returns it.

        Raises:
            TypeError: the state is not a mapping, an array does not hold floating-point numbers, or
                eps, momentum or batches is not a number.
            ValueError: the state has a name that is not known, lacks the mean, the variance, eps or
                momentum, is of another number of channels, or has a value that the layer cannot
                take.
        """
        if self.running is None and isinstance(state, Mapping):
            for name in "mean", "var", "momentum", "batches":
                if state.get(name) is not None:
                    raise ValueError(
                        f"{name} is {short(state[name])}; expected None: the layer follows no "
                        "statistics"
                    )
            nothing = np.zeros(self.channels)
            state = {**state, "mean": nothing, "var": nothing, "momentum": 0}
        new = convert(state, "bnlib", "bnlib")
        if new["mean"].shape != (self.channels,):
            raise ValueError(f"mean has shape {new['mean'].shape}; expected ({self.channels},)")
        for name, neutral in ("gamma", 1), ("beta", 0):
            if getattr(self, name) is None and (new[name] != neutral).any():
                raise ValueError(
                    f"{name} is {short(new[name])}; expected {neutral}s or None: the layer has no "
                    f"{name}"
                )
        if self.gamma is not None and self.beta is not None:
            self.gamma.value[:] = new["gamma"]
            self.beta.value[:] = new["beta"]
        if self.running is not None:
            self.running.replace(new["mean"], new["var"], new["batches"])
            self.running.momentum = new["momentum"]
        self.eps = new["eps"]


class GhostBatchNorm(BatchNorm):
    r"""BatchNorm that takes its statistics from parts of the mini-batch in training.

    Args:
        channels: as in `BatchNorm`, like what is not named here.
        size: examples in a part; the last one has what is left. The running statistics take the
            parts one after the other, as if each were a mini-batch.
        eps: added to the variance.
        momentum: weight of a new part in the running statistics.
        affine: whether there are gamma and beta.
        track_running_stats: whether to follow the statistics.
        dtype: of gamma and beta.

    Raises:
        ValueError: as in `BatchNorm`, or size is below 1.

    Source: Hoffer et al. 2017; chapter "Where does it break?".
    """

    def __init__(self, channels: int, size: int, **how: Any) -> None:
        if size < 1:
            raise ValueError(f"size is {size}; expected 1 or more")
        super().__init__(channels, **how)
        self.size = size

    def _normalize(
        self, x: np.ndarray, gamma: np.ndarray | None, beta: np.ndarray | None
    ) -> tuple[np.ndarray, norms.GhostCache]:
        y, cache = norms.ghost_batch_norm_train(x, gamma, beta, size=self.size, eps=self.eps)
        for part in cache.parts:
            self._follow(part)
        return y, cache

    @staticmethod
    def _derive(dy: np.ndarray, kept: norms.GhostCache) -> tuple[np.ndarray, Any, Any]:
        return norms.ghost_batch_norm_backward(dy, kept)


class BatchRenorm(BatchNorm):
    r"""BatchNorm that trains with what inference would use, as far as two limits allow.

    Args:
        channels: as in `BatchNorm`, like what is not named here.
        r_max: limit of the factor, 1 or more. The paper starts at 1 and raises it to 3, once the
            running statistics are worth something: set the attribute.
        d_max: limit of the shift, 0 or more. The paper starts at 0 and raises it to 5.
        eps: added to the variance.
        momentum: weight of a new batch in the running statistics.
        affine: whether there are gamma and beta.
        dtype: of gamma and beta.

    Raises:
        ValueError: as in `BatchNorm`; r_max or d_max is not as said above.

    Source: Ioffe 2017; chapter "What else normalizes?".
    """

    def __init__(
        self, channels: int, *, r_max: float = 3.0, d_max: float = 5.0, **how: Any
    ) -> None:
        super().__init__(channels, **how)
        if self.running is None:
            raise ValueError("track_running_stats is False; expected True: x is drawn to them")
        self.r_max, self.d_max = r_max, d_max

    def _normalize(
        self, x: np.ndarray, gamma: np.ndarray | None, beta: np.ndarray | None
    ) -> tuple[np.ndarray, norms.RenormCache]:
        assert self.running is not None
        y, cache = norms.batch_renorm_train(
            x,
            self.running.mean,
            self.running.var,
            gamma,
            beta,
            r_max=self.r_max,
            d_max=self.d_max,
            eps=self.eps,
        )
        self._follow(cache.batch)
        return y, cache

    @staticmethod
    def _derive(dy: np.ndarray, kept: norms.RenormCache) -> tuple[np.ndarray, Any, Any]:
        return norms.batch_renorm_backward(dy, kept)


class GroupNorm(_Normalization):
    r"""Normalize each group of channels of each example, as in `bnlib.norms.group_norm`.

    Training and inference do the same, in this layer and in those below.

    Args:
        groups: number of groups, which divides the channels.
        channels: number of channels C.
        eps: added to the variance, in units of x²; positive.
        affine: whether there are gamma, from 1, and beta, from 0.
        dtype: of gamma and beta.

    Raises:
        ValueError: an argument is not as said above.

    Source: Wu & He 2018; chapter "What else normalizes?".
    """

    def __init__(
        self,
        groups: int,
        channels: int,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: type = np.float32,
    ) -> None:
        check_eps(eps)
        super().__init__(channels, affine, dtype)
        self.eps = eps
        if groups < 1 or channels % groups:
            raise ValueError(f"groups is {groups}; expected a number that divides {channels}")
        self.groups = groups

    def _normalize(
        self, x: np.ndarray, gamma: np.ndarray | None, beta: np.ndarray | None
    ) -> tuple[np.ndarray, norms.Cache]:
        return norms.group_norm(x, self.groups, gamma, beta, eps=self.eps)

    def forward(self, x: np.ndarray) -> np.ndarray:
        y, cache = self._normalize(x, *self._vectors(x))
        self._kept = y.shape, cache
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        dx, dgamma, dbeta = norms.backward(dy, self._take(dy))
        self._add(dgamma, dbeta)
        return dx


class InstanceNorm(GroupNorm):
    r"""Normalize each channel of each example, as in `bnlib.norms.instance_norm`.

    Args:
        channels: number of channels C; `GroupNorm` has what is not named here.
        eps: added to the variance.
        affine: whether there are gamma and beta.
        dtype: of gamma and beta.

    Raises:
        ValueError: as in `GroupNorm`.

    Source: Ulyanov et al. 2016; chapter "What else normalizes?".
    """

    def __init__(self, channels: int, **how: Any) -> None:
        super().__init__(channels, channels, **how)


class LayerNorm(GroupNorm):
    r"""Normalize each example, or each position of it, as in `bnlib.norms.layer_norm`.

    Args:
        channels: number of channels C; `GroupNorm` has what is not named here.
        each_position: whether each position is normalized by itself.
        eps: added to the variance.
        affine: whether there are gamma and beta.
        dtype: of gamma and beta.

    Raises:
        ValueError: as in `GroupNorm`.

    Source: Ba et al. 2016; chapter "What else normalizes?".
    """

    def __init__(self, channels: int, *, each_position: bool = False, **how: Any) -> None:
        super().__init__(1, channels, **how)
        self.each_position = each_position

    def _normalize(
        self, x: np.ndarray, gamma: np.ndarray | None, beta: np.ndarray | None
    ) -> tuple[np.ndarray, norms.Cache]:
        return norms.layer_norm(x, gamma, beta, each_position=self.each_position, eps=self.eps)


class RMSNorm(LayerNorm):
    r"""Divide each example, or each position, by its root mean square: `bnlib.norms.rms_norm`.

    Args:
        channels: number of channels C; `LayerNorm` has what is not named here. There is no beta.
        each_position: whether each position has a root mean square of its own.
        eps: added to the mean square.
        affine: whether there is a gamma.
        dtype: of gamma.

    Raises:
        ValueError: as in `GroupNorm`.

    Source: Zhang & Sennrich 2019; chapter "What else normalizes?".
    """

    def __init__(self, channels: int, **how: Any) -> None:
        super().__init__(channels, **how)
        self.beta = None

    def _normalize(
        self, x: np.ndarray, gamma: np.ndarray | None, beta: np.ndarray | None
    ) -> tuple[np.ndarray, norms.Cache]:
        return norms.rms_norm(x, gamma, each_position=self.each_position, eps=self.eps)


class DynamicTanh(_Normalization):
    r"""y = γ tanh(αx) + β, with one α that is learned, as in `bnlib.norms.dynamic_tanh`.

    Args:
        channels: number of channels C.
        alpha: α at the start.
        dtype: of α, gamma and beta.

    Attributes:
        alpha: α, (1,).

    Raises:
        ValueError: channels is not positive.

    Source: Zhu et al. 2025; chapter "What else normalizes?".
    """

    def __init__(self, channels: int, *, alpha: float = 0.5, dtype: type = np.float32) -> None:
        super().__init__(channels, True, dtype)
        self.alpha = Parameter(np.full(1, alpha, dtype))

    def forward(self, x: np.ndarray) -> np.ndarray:
        y, cache = norms.dynamic_tanh(x, float(self.alpha.value[0]), *self._vectors(x))
        self._kept = y.shape, cache
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        dx, dalpha, dgamma, dbeta = norms.dynamic_tanh_backward(dy, self._take(dy))
        self.alpha.grad += dalpha
        self._add(dgamma, dbeta)
        return dx

    def parameters(self) -> list[Parameter]:
        return [self.alpha, *super().parameters()]


class WeightNorm(Layer):
    r"""A linear or convolution layer whose weights are g·v/‖v‖, as in `bnlib.norms.weight_norm`.

    Args:
        layer: a `Linear` or `Conv2d`. Its weights become v; g starts at their lengths, so that the
            layer computes what it did. Its `weight` holds the product from then on.

    Attributes:
        direction: v, of the weight's shape.
        gain: g, (outputs,).

    Raises:
        TypeError: the layer is no `Linear` or `Conv2d`.
        ValueError: all weights of an output are 0.

    Source: Salimans & Kingma 2016; chapter "What else normalizes?".
    """

    def __init__(self, layer: Linear | Conv2d) -> None:
        if not isinstance(layer, _Weighted):
            raise TypeError(f"layer is a {type(layer).__name__}; expected a Linear or a Conv2d")
        self.layer = layer
        self.direction = Parameter(layer.weight.value.copy())
        rows = layer.weight.value.reshape(len(layer.weight.value), -1)
        self.gain = Parameter(self._first_gain(rows).astype(rows.dtype))

    @staticmethod
    def _first_gain(rows: np.ndarray) -> np.ndarray:
        """From the weights of each output, (outputs, inputs)."""
        lengths: np.ndarray = np.linalg.norm(rows.astype(np.float64), axis=1)
        return lengths

    def _weights(self) -> tuple[np.ndarray, norms.Cache]:
        return norms.weight_norm(self.direction.value, self.gain.value)

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.layer.weight.value[...], cache = self._weights()
        y = self.layer.forward(x)
        self._kept = y.shape, cache
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        cache = self._take(dy)
        self.layer.weight.grad.fill(0)
        dx = self.layer.backward(dy)
        ddirection, dgain = norms.weight_backward(self.layer.weight.grad, cache)
        self.direction.grad += ddirection
        self.gain.grad += dgain
        return dx

    def _forget(self) -> None:
        super()._forget()
        self.layer._forget()

    def parameters(self) -> list[Parameter]:
        return [self.direction, self.gain, *self.layer.parameters()[1:]]


class WeightStandardization(WeightNorm):
    r"""A layer whose weights have mean 0 and variance g² for each output.

    As in `bnlib.norms.weight_standardization`.

    Args:
        layer: a `Linear` or `Conv2d`; g starts at the standard deviations of its weights.

    Attributes:
        direction: the weights before standardization, of their shape.
        gain: g, (outputs,).

    Raises:
        TypeError: the layer is no `Linear` or `Conv2d`.

    Source: Qiao et al. 2019; chapter "What else normalizes?".
    """

    @staticmethod
    def _first_gain(rows: np.ndarray) -> np.ndarray:
        spread: np.ndarray = rows.astype(np.float64).std(axis=1)
        return spread

    def _weights(self) -> tuple[np.ndarray, norms.Cache]:
        return norms.weight_standardization(self.direction.value, self.gain.value)


class Sigmoid(Layer):
    r"""y = 1 / (1 + e⁻ˣ), so that dx = dy · y (1 − y).

    Source: chapter "Why normalize?".
    """

    def forward(self, x: np.ndarray) -> np.ndarray:
        y: np.ndarray = 0.5 + 0.5 * np.tanh(0.5 * x)  # without overflow, to 3e-8
        self._kept = y.shape, y
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        y = self._take(dy)
        dx: np.ndarray = dy * y * (1 - y)
        return dx


class ReLU(Layer):
    """y = max(x, 0), so that dx = dy where x > 0, else 0."""

    def forward(self, x: np.ndarray) -> np.ndarray:
        self._kept = x.shape, x > 0
        return np.maximum(x, 0)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        dx: np.ndarray = dy * self._take(dy)
        return dx


class Dropout(Layer):
    r"""In training, set a share of the values to 0 and scale the rest by 1 / (1 − rate).

    Args:
        rate: probability of a 0, in [0, 1).
        rng: where the zeros are drawn from.

    Raises:
        ValueError: rate is outside [0, 1) or NaN.

    Source: chapter "Is Dropout still needed?".
    """

    def __init__(self, rate: float, *, rng: np.random.Generator) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"rate is {rate}; expected a number in [0, 1)")
        self.rate = rate
        self._rng = rng

    def forward(self, x: np.ndarray) -> np.ndarray:
        if not self.training or self.rate == 0:
            self._kept = x.shape, None
            return x
        keep = self._rng.random(x.shape, dtype=np.float32) >= self.rate
        mask = (keep / (1 - self.rate)).astype(np.result_type(x, np.float16))
        self._kept = x.shape, mask
        y: np.ndarray = x * mask
        return y

    def backward(self, dy: np.ndarray) -> np.ndarray:
        mask = self._take(dy)
        return dy if mask is None else np.multiply(dy, mask)


class Sequential(Layer):
    """Layers one after the other.

    Args:
        layers: the layers, first one first; `net[i]` is layer i.
    """

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers

    def forward(self, x: np.ndarray) -> np.ndarray:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def inputs(self, x: np.ndarray, indices: Sequence[int]) -> dict[int, np.ndarray]:
        """What arrives at some of the layers when x is fed in.

        Args:
            x: input of the network.
            indices: the layers, by position; negative ones count from the end.

        Returns:
            The input of each of these layers, by the position that was given.

        Raises:
            IndexError: there is no such layer.
        """
        found = {i: range(len(self.layers))[i] for i in indices}
        inputs = []
        for layer in self.layers[: max(found.values(), default=-1) + 1]:
            inputs.append(x)
            x = layer.forward(x)
            layer._forget()  # this is no pass to go back through
        return {i: inputs[position] for i, position in found.items()}

    def backward(self, dy: np.ndarray) -> np.ndarray:
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy

    def _forget(self) -> None:
        for layer in self.layers:
            layer._forget()

    def parameters(self) -> list[Parameter]:
        return [p for layer in self.layers for p in layer.parameters()]

    def train(self, mode: bool = True) -> None:
        self.training = mode
        for layer in self.layers:
            layer.train(mode)

    def __getitem__(self, i: int) -> Layer:
        return self.layers[i]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)


def softmax_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    r"""The loss of a classifier, averaged over the batch, and its derivative.

    .. math:: \ell = -\frac{1}{N} \sum_n \log p_{n,\,t_n}, \qquad
        p_{n,k} = \frac{e^{z_{n,k}}}{\sum_j e^{z_{n,j}}}, \qquad
        \frac{\partial \ell}{\partial z_{n,k}} = \frac{p_{n,k} - [k = t_n]}{N}

    Args:
        logits: z, (N, K).
        labels: the class t of each example, integers from 0 to K − 1, (N,).

    Returns:
        The loss in nats, and its derivative with respect to logits, (N, K), of their dtype.

    Raises:
        ValueError: the shapes do not match, the batch is empty, or a label is not a class.

    Source: chapter "A network from scratch".
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"logits has shape {logits.shape}, labels {labels.shape}; expected (N, K) and (N,)"
        )
    n, k = logits.shape
    if n == 0 or labels.dtype.kind not in "iu":
        raise ValueError(f"{n} labels of dtype {labels.dtype}; expected at least one integer")
    if labels.min() < 0 or labels.max() >= k:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}; expected 0 to {k - 1}")
    z = logits - logits.max(axis=1, keepdims=True)  # the same softmax, without overflow
    exp_z = np.exp(z)
    total = exp_z.sum(axis=1, keepdims=True)
    rows = np.arange(n)
    loss = float(np.mean(np.log(total[:, 0]) - z[rows, labels], dtype=np.float64))
    dlogits = exp_z / total
    dlogits[rows, labels] -= 1
    dlogits /= n
    return loss, dlogits
