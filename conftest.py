"""What every test starts with, a notebook's kernel among them."""

import os

from notebooks import QUIET

os.environ.update(QUIET)
