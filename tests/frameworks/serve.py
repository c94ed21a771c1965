"""Runs one adapter in its framework's own Python, where arrays come in and go out as npz.

A call is {"do": name, …arrays}; an answer is {"y": …}, the state, or {"error": "ValueError: …"}.
Any Python from 3.6 on can run this, with numpy alone.
"""

import importlib.util
import io
import os
import struct
import sys

import numpy as np


def read(stream):
    """The next message, or None at the end: its length in 8 bytes, and the npz."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    with np.load(io.BytesIO(stream.read(struct.unpack("<q", head)[0]))) as arrays:
        return {name: v if v.ndim else v.item() for name, v in arrays.items()}


def write(stream, message):
    buffer = io.BytesIO()
    np.savez(buffer, **message)
    stream.write(struct.pack("<q", buffer.tell()) + buffer.getvalue())
    stream.flush()


def main(path, kind):
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a framework prints belongs to none of the answers
    spec = importlib.util.spec_from_file_location("adapter", path)
    adapter = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(adapter)
    layers = []
    while True:
        call = read(sys.stdin.buffer)
        if call is None:
            return
        do, number = call.pop("do"), call.pop("layer", None)
        try:
            if do == "new":
                channels, ndim = call.pop("channels"), call.pop("ndim")
                layers.append(getattr(adapter, kind)(channels, ndim, call or None))
                answer = {"layer": len(layers) - 1, "plain": hasattr(layers[-1], "plain")}
            elif do == "state":
                answer = layers[number].state()
            else:
                answer = {"y": np.asarray(getattr(layers[number], do)(call["x"]))}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        write(answers, answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
