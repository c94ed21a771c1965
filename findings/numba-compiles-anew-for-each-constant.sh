#!/usr/bin/env bash
# numba 0.68.1: a compiled function that is called with a constant is compiled for each constant.
#
# Guessed: between two functions of `njit`, a call is typed as a call from Python is. The types of
#          f(x, 0, True), f(x, 1, True) and f(x, 2, False) are the same, an array, int64 and bool,
#          and one machine code serves them all.
# Seen:    each is compiled by itself. Where the caller is compiled too, the type of an argument that
#          stands there as a constant is that constant, Literal[int](0), although f asks for none.
#          Variables of the same values, and calls from Python, have the plain types. So a long
#          function takes its compile time, and a place on disk, once more for each constant that
#          somebody writes down.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numba==0.68.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'END' | tee "$folder/seen"
import numpy as np
from numba import njit


def add(x, n, twice):
    total = 0.0
    for v in x:
        total += v + n
    return 2 * total if twice else total


x, n = np.ones(3), 2


def count(caller):
    """How many times `add` is compiled for a caller, and as what."""
    f = njit(add)
    caller(f)
    return len(f.signatures), [f"{types[1]}, {types[2]}" for types in f.overloads]


@njit
def constants(f, x):
    return f(x, 0, True) + f(x, 1, True) + f(x, 2, True) + f(x, 2, False)


@njit
def variables(f, x):
    n, yes = x.size, x.size > 0
    return f(x, n - 3, yes) + f(x, n - 2, yes) + f(x, n - 1, yes) + f(x, n - 1, not yes)


print("variables in compiled code:", *count(lambda f: variables(f, x)))
print("called from Python:        ", *count(lambda f: [f(x, i, b) for i in (0, 1, 2) for b in (True, False)]))
print("constants in compiled code:", *count(lambda f: constants(f, x)))
END
diff "$folder/seen" - <<'END' || { echo "It is no longer so."; exit 1; }
variables in compiled code: 1 ['int64, bool']
called from Python:         1 ['int64, bool']
constants in compiled code: 4 ['Literal[int](0), Literal[bool](True)', 'Literal[int](1), Literal[bool](True)', 'Literal[int](2), Literal[bool](True)', 'Literal[int](2), Literal[bool](False)']
END
