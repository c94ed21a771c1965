"""What every test starts with, a notebook's kernel among them."""

import os

from notebooks import QUIET

os.environ.update(QUIET)
# The tests run side by side. Beside a load, a product of 60 rows took 26 ms with two threads of
# BLAS, which wait for one another, and 0.2 ms with one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
