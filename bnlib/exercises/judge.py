"""How an answer is judged."""

import copy
import ctypes
import inspect
import textwrap
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np

from bnlib._messages import short

Array = np.ndarray
Generator = np.random.Generator
Inputs = dict[str, Any]

_CASES = 3  # random inputs an answer has to stand
_SECONDS = 5.0  # that an answer may take for all of them
_PROPERTY_TOLERANCE = 1e-6  # central differences are no better


@dataclass(frozen=True)
class Exercise:
    """What a reader's function must do.

    Attributes:
        name: how `check` is asked for it.
        see: where the equation stands, for the reader whose answer is wrong.
        inputs: from a random generator to the arguments, by name, in the order of the call.
        reference: the right answer: takes the arguments, returns an array, a number or a tuple.
        outputs: what the returned values are called in the equations.
        properties: what must hold, as a sentence with "must", and a function of `answer` and the
            arguments that returns two things that must be equal. `answer()` is what the reader's
            function gives for these arguments, `answer(eps=1)` what it gives when eps is 1.
        mistakes: typical wrong answers, each under the words that complete "This is what comes out
            when …". A reader who returns the same values is told so. Each is a function, or an edit
            of the reference: what stands once in its source, and what stands there instead.
        tolerance: largest error allowed, as a share of the largest value of the right answer.
        dtype: what the task asks the outputs to be: `np.float32`, or `np.integer` for any kind of
            integer. Where it asks for nothing, right values of any dtype will do.

    Raises:
        TypeError: outputs is a string, or a mistake is neither a function nor an edit.
        ValueError: a property's sentence has no "must".
    """

    name: str
    see: str
    inputs: Callable[[Generator], Inputs]
    reference: Callable[..., Any]
    outputs: Sequence[str]
    properties: Mapping[str, Callable[..., tuple[Any, Any]]] = field(default_factory=dict)
    mistakes: Mapping[str, Callable[..., Any] | tuple[str, str]] = field(default_factory=dict)
    tolerance: float = 1e-9
    dtype: type[np.generic] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.outputs, str):
            raise TypeError(f"outputs is {self.outputs!r}; expected a list of names")
        for sentence in self.properties:
            if " must " not in sentence:
                raise ValueError(f"properties has {sentence!r}; expected a sentence with 'must'")
        for words, mistake in self.mistakes.items():
            if not callable(mistake) and not (isinstance(mistake, tuple) and len(mistake) == 2):
                raise TypeError(
                    f"the mistake {words!r} is {mistake!r}; expected a function, or (old, new)"
                )


_EXERCISES: dict[str, Exercise] = {}


class _Wrong(Exception):
    """What is wrong with an answer."""


class _TimeUp(BaseException):
    """Thrown into an answer that does not come back; no `except Exception` stops it."""


def register(exercise: Exercise) -> None:
    """Make an exercise known to `check`; one of the same name is replaced.

    Args:
        exercise: the exercise.
    """
    _EXERCISES[exercise.name] = exercise


def exercise(**fields: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the function below this as the reference of an exercise.

    Args:
        fields: of the `Exercise`. Its name is the function's, with hyphens.
    """

    def registered(reference: Callable[..., Any]) -> Callable[..., Any]:
        register(Exercise(reference.__name__.replace("_", "-"), reference=reference, **fields))
        return reference

    return registered


def names() -> list[str]:
    """The names of all exercises."""
    return sorted(_EXERCISES)


def check(name: str, function: Callable[..., Any]) -> None:
    """Run a function as the answer to an exercise, and print whether it is right.

    Whatever the function does, `check` comes back after a few seconds and prints what it saw.

    Args:
        name: of the exercise.
        function: the reader's answer.

    Raises:
        ValueError: there is no such exercise.
    """
    problem = find_problem(name, function)
    if problem is None:
        print(f"✓ {name}: right, on {_CASES} random inputs.")
    else:
        print(f"✗ {name}: {problem}")
        print(f"  See {_EXERCISES[name].see}.")


def find_problem(name: str, function: Callable[..., Any]) -> str | None:
    """The first thing that is wrong with an answer.

    Args:
        name: of the exercise.
        function: the reader's answer.

    Returns:
        One or two sentences, or None where nothing is wrong.

    Raises:
        ValueError: there is no such exercise.
    """
    exercise = _find(name)
    if not callable(function):
        return f"the answer is of type {type(function).__name__}; expected a function."
    try:
        # What the right answer has to compile, it compiles before the reader's time begins.
        _call(exercise, exercise.reference, exercise.inputs(np.random.default_rng(0)))
        _in_time(lambda: _judge(exercise, function))
    except _Wrong as wrong:
        return str(wrong)
    return None


def verify(name: str) -> None:
    """For whoever writes an exercise: see that it does not contradict itself.

    Args:
        name: of the exercise.

    Raises:
        ValueError: there is no such exercise, its inputs are not the arguments of its reference by
            name, its reference is rejected, or one of its mistakes is accepted, not recognized, or
            an edit that cannot be made.
    """
    exercise = _find(name)
    given = exercise.inputs(np.random.default_rng(0))
    has = ", ".join(given) if isinstance(given, dict) else f"a {type(given).__name__}"
    parameters = inspect.signature(exercise.reference).parameters.values()
    takes = ", ".join(p.name for p in parameters if p.default is p.empty)
    if not isinstance(given, dict) or has != takes:
        raise ValueError(
            f"{name}: the inputs are {has}; expected a dict with the arguments of the reference, "
            f"{takes}, in the same order"
        )
    problem = find_problem(name, exercise.reference)
    if problem is not None:
        raise ValueError(f"{name}: the reference is rejected: {problem}")
    for words in exercise.mistakes:
        problem = find_problem(name, wrong_answer(exercise, words)) or "it is right."
        if not problem.endswith(_named(words)):
            raise ValueError(f"{name}: the mistake {words!r} is answered with: {problem}")


def _find(name: str) -> Exercise:
    if name not in _EXERCISES:
        raise ValueError(f"name is {short(repr(name))}; expected one of {', '.join(names())}")
    return _EXERCISES[name]


def wrong_answer(exercise: Exercise, words: str) -> Callable[..., Any]:
    """The function that makes a typical mistake.

    Raises:
        ValueError: the mistake is an edit that cannot be made.
    """
    mistake, reference = exercise.mistakes[words], exercise.reference
    if callable(mistake):
        return mistake
    edit = f"{exercise.name}: the mistake {words!r}"
    try:
        source = textwrap.dedent(inspect.getsource(reference))
    except (OSError, TypeError):
        source = ""
    source = source[source.find("\ndef ") + 1 :]  # without its decorators
    if not isinstance(reference, FunctionType) or not source.startswith("def "):
        raise ValueError(
            f"{edit} is an edit; expected a reference made by a `def` in a file or cell"
        )
    old, new = mistake
    if source.count(old) != 1:
        raise ValueError(
            f"{edit} replaces {old!r}; expected a part of the reference that is there once, "
            f"and not {source.count(old)} times"
        )
    made: dict[str, Any] = {}
    exec(compile(source.replace(old, new), f"<{edit}>", "exec"), reference.__globals__, made)
    return made[reference.__name__]


def _in_time(work: Callable[[], None]) -> None:
    """Run work in a thread that is stopped after some seconds; raise what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            try:
                work()
            except BaseException as error:
                raised.append(error)
        except _TimeUp:  # a second one, on the way out
            pass

    thread = threading.Thread(target=run, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # Python in a web page has no threads; the page can interrupt it
        work()
        return
    try:
        thread.join(_SECONDS)
    finally:
        late = thread.is_alive()
        for _ in range(20):  # an answer can catch what is thrown into it, and go on
            if not thread.is_alive():
                break
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_TimeUp)
            )
            thread.join(0.05)
    if late:
        rest = " It is still running: restart the kernel." if thread.is_alive() else ""
        raise _Wrong(
            f"your function did not come back within {_SECONDS:g} seconds. "
            f"Is there a loop that never ends?{rest}"
        )
    if raised:
        raise raised[0]


def _judge(exercise: Exercise, function: Callable[..., Any]) -> None:
    """Raise `_Wrong` if a function fails on one of the random inputs."""
    for seed in range(_CASES):
        arguments = exercise.inputs(np.random.default_rng(seed))
        got = _call(exercise, function, arguments)
        try:
            _compare_kinds(exercise, arguments, got)
            for sentence, sides in exercise.properties.items():
                _hold(sentence, sides, _changed(exercise, function, arguments), arguments)
            _compare_values(exercise, arguments, got)
        except _Wrong as wrong:
            raise _Wrong(f"{wrong}{_diagnosis(exercise, arguments, got)}") from None


def _call(exercise: Exercise, function: Callable[..., Any], arguments: dict[str, Any]) -> list[Any]:
    """What a function returns, as a list, with one entry for each output: arrays, if it can be."""
    given = copy.deepcopy(arguments)
    try:
        inspect.signature(function).bind(*given.values())
    except TypeError:
        raise _Wrong(
            f"your function takes {inspect.signature(function)}; expected ({', '.join(given)})."
        ) from None
    except ValueError:
        pass  # a function written in C does not tell what it takes
    try:
        got = function(*given.values())
    except NotImplementedError:
        raise _Wrong("still to be written.") from None
    except _TimeUp:
        raise
    except BaseException as error:  # also SystemExit and KeyboardInterrupt: check must come back
        raise _Wrong(_what_was_raised(error, function)) from error
    for name, v in arguments.items():
        if not _same(given[name], v):
            raise _Wrong(f"your function changed its argument {name}; compute into a new array.")
    if got is None:
        raise _Wrong(
            f"your function returned nothing; expected {', '.join(exercise.outputs)}. "
            "Is there a return?"
        )
    values = [got] if len(exercise.outputs) == 1 else got
    stacked = isinstance(got, np.ndarray) and got.ndim > 1
    if not (stacked or isinstance(values, tuple | list)) or len(values) != len(exercise.outputs):
        raise _Wrong(
            f"your function returned {_describe(got)}; expected {len(exercise.outputs)} values, "
            f"separated by commas: {', '.join(exercise.outputs)}."
        )
    for name, value in zip(exercise.outputs, values, strict=True):
        if np.ma.is_masked(value):
            raise _Wrong(
                f"{name} has masked values, {np.ma.count_masked(value)} of {np.size(value)}."
            )
    return [_as_array(value) for value in values]


def _same(a: Any, b: Any) -> bool:
    if isinstance(b, tuple | list):
        return isinstance(a, tuple | list) and len(a) == len(b) and all(map(_same, a, b))
    return np.array_equal(a, b, equal_nan=np.asarray(b).dtype.kind == "f")


def _as_array(value: Any) -> Any:
    """A plain array of its own, which compares as arrays do; what is none and no list stays."""
    if not isinstance(value, np.ndarray | np.generic | int | float | tuple | list):
        return value
    try:
        return np.array(value)
    except Exception:  # rows of unequal length
        return value


def _changed(
    exercise: Exercise, function: Callable[..., Any], arguments: dict[str, Any]
) -> Callable[..., Any]:
    """The function for use in a property: takes what differs from the arguments."""

    def answer(**changes: Any) -> Any:
        got = [_as_float64(value) for value in _call(exercise, function, arguments | changes)]
        return got[0] if len(got) == 1 else got

    return answer


def _as_float64(value: Any) -> Any:
    """Properties may hand a float on to functions that know no longer or shorter ones."""
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return value.astype(np.float64) if is_float else value


def _what_was_raised(error: BaseException, function: Callable[..., Any]) -> str:
    """The error of a reader's function, with the line that it comes from."""
    try:
        text = f"your function raised {type(error).__name__}: {short(error, 1000)}"
    except Exception:
        text = f"your function raised {type(error).__name__}"
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return f"{text}, in the line: {frames[-1].line}" if frames and frames[-1].line else text


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"one array of shape {value.shape}"
    if isinstance(value, tuple | list):
        return f"{len(value)} values"
    return f"one {type(value).__name__}"


def _rights(exercise: Exercise, function: Callable[..., Any], arguments: dict[str, Any]) -> list:
    """The outputs of a reference or a mistake, as arrays."""
    with np.errstate(all="ignore"):
        got = function(**copy.deepcopy(arguments))
    return [np.asarray(v) for v in (got if len(exercise.outputs) > 1 else [got])]


def _compare_kinds(exercise: Exercise, arguments: dict[str, Any], got: list[Any]) -> None:
    """Raise `_Wrong` unless the values are numbers, of the right shape and dtype, and finite."""
    rights = _rights(exercise, exercise.reference, arguments)
    for name, value, right in zip(exercise.outputs, got, rights, strict=True):
        if not isinstance(value, np.ndarray):
            wanted = f"a NumPy array of shape {right.shape}" if right.ndim else "a number"
            raise _Wrong(f"{name} is of type {type(value).__name__}; expected {wanted}.")
        if value.shape != right.shape:
            if not value.ndim:
                raise _Wrong(f"{name} is one number; expected an array of shape {right.shape}.")
            wanted = right.shape if right.ndim else "one number"
            raise _Wrong(f"{name} has shape {value.shape}; expected {wanted}.")
        if exercise.dtype is np.integer and value.dtype.kind == "f":
            raise _Wrong(f"{name} is a float; expected an integer (// divides without rest).")
        asked = exercise.dtype is None or np.issubdtype(value.dtype, exercise.dtype)
        if not asked or value.dtype.kind not in "fiu" + right.dtype.kind:
            expected = exercise.dtype or right.dtype.type
            raise _Wrong(f"{name} has dtype {value.dtype}; expected {expected.__name__}.")
        bad = np.count_nonzero(~np.isfinite(value))
        if bad:
            raise _Wrong(f"{name} has NaN or infinite values, {bad} of {value.size}.")


def _hold(
    sentence: str,
    sides: Callable[..., tuple[Any, Any]],
    answer: Callable[..., Any],
    arguments: dict[str, Any],
) -> None:
    """Raise `_Wrong` unless the two sides of a property are equal, up to rounding."""
    try:
        got, expected = (np.asarray(side, np.float64) for side in sides(answer, **arguments))
    except _Wrong as wrong:
        raise _Wrong(f"{sentence}; there, {wrong}") from wrong
    except Exception as problem:
        raise _Wrong(f"{sentence}; yours cannot be tried: {problem}.") from problem
    try:
        error = np.max(np.abs(got - expected), initial=0)
    except ValueError:
        raise _Wrong(
            f"{sentence}; yours has the shape {got.shape} there, and not {expected.shape}."
        ) from None
    if not np.isfinite(error):
        raise _Wrong(f"{sentence}; yours has NaN or infinite values there.")
    if error > _PROPERTY_TOLERANCE * max(1, np.max(np.abs(expected), initial=0)):
        raise _Wrong(f"{sentence}; yours is off by up to {error:.2g}.")


def _compare_values(exercise: Exercise, arguments: dict[str, Any], got: list[Any]) -> None:
    """Raise `_Wrong` unless the values are those of the reference."""
    rights = _rights(exercise, exercise.reference, arguments)
    for name, value, right in zip(exercise.outputs, got, rights, strict=True):
        dtype = np.result_type(value, right, np.float64)  # where truth values can be subtracted
        error = np.max(np.abs(np.subtract(value, right, dtype=dtype)), initial=0)
        scale = np.max(np.abs(right), initial=0)
        if error > exercise.tolerance * max(scale, 1e-300):
            short = value.dtype.kind == "f" and value.itemsize < right.itemsize
            raise _Wrong(
                f"{name} is off by up to {error:.2g}, where the right values go up to {scale:.2g}."
                + short * f" It has dtype {value.dtype}, with fewer digits than {right.dtype}."
            )


def _diagnosis(exercise: Exercise, arguments: dict[str, Any], got: list[Any]) -> str:
    """The typical mistake that gives just these values, in words; nothing where there is none.

    Right values, of an answer that fails elsewhere, say nothing of how it fails.
    """

    def gives(function: Callable[..., Any]) -> bool:
        return all(
            isinstance(value, np.ndarray)
            and value.dtype.kind in "fiu"
            and value.shape == one.shape
            and np.allclose(value, one, rtol=exercise.tolerance, atol=1e-12, equal_nan=True)
            for value, one in zip(got, _rights(exercise, function, arguments), strict=True)
        )

    if gives(exercise.reference):
        return ""
    mistakes = (words for words in exercise.mistakes if gives(wrong_answer(exercise, words)))
    return next(map(_named, mistakes), "")


def _named(words: str) -> str:
    return f"\n  This is what comes out when {words}."
