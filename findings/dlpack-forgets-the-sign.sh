#!/usr/bin/env bash
# torch 2.13.0 and NumPy 2.4.6: DLPack hands out a tensor with the negative bit as if it had none.
#
# The imaginary part of a conjugate is a view of the same memory with a bit that says "negated".
# `v.numpy()` raises an error that says so. A conjugate itself cannot be exported, by an error, too.
#
# Guessed: `np.from_dlpack(v)` raises an error as well, or gives what `v` shows.
# Seen:    it gives the memory without the sign, and no error: 2 and -4 for -2 and 4. So does
#          `torch.from_dlpack(v)`, from torch to torch. `v.resolve_neg()` first gives the right ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'END' | tee "$folder/seen"
import numpy as np
import torch

def attempt(function, *arguments):
    try:
        return function(*arguments).tolist()
    except (BufferError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"

z = torch.tensor([1 + 2j, 3 - 4j])
v = z.conj().imag
print("v                           ", v.tolist())
print("v.numpy()                   ", attempt(v.numpy))
print("np.from_dlpack(z.conj())    ", attempt(np.from_dlpack, z.conj()))
print("np.from_dlpack(v)           ", attempt(np.from_dlpack, v))
print("torch.from_dlpack(v)        ", attempt(torch.from_dlpack, v))
print("np.from_dlpack(resolve_neg) ", attempt(np.from_dlpack, v.resolve_neg()))
END
diff "$folder/seen" - <<'END' || exit 1
v                            [-2.0, 4.0]
v.numpy()                    RuntimeError: Can't call numpy() on Tensor that has negative bit set. Use tensor.resolve_neg().numpy() instead.
np.from_dlpack(z.conj())     BufferError: Can't export tensors with the conjugate bit set
np.from_dlpack(v)            [2.0, -4.0]
torch.from_dlpack(v)         [2.0, -4.0]
np.from_dlpack(resolve_neg)  [-2.0, 4.0]
END
