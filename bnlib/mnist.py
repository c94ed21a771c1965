"""The MNIST digits: found or fetched, verified, and never half-read.

`load` takes the first of these places that holds four files with the right content:

1. the folder that the environment variable ``BNLIB_DATA`` names, laid out as torchvision does it
   (``MNIST/raw/train-images-idx3-ubyte.gz`` and so on, gzipped or plain); it is never modified;
2. the cache: the folder ``BNLIB_CACHE``, or ``batchnorm-book`` in the user's cache folder;
3. a download from one of two mirrors, which is then kept in the cache;
4. 5,000 real MNIST digits that come with this package, with a warning that says so.

``BNLIB_DATA=embedded`` takes the embedded digits on purpose, without the warning.
"""

import contextlib
import functools
import gzip
import hashlib
import io
import math
import os
import struct
import sys
import tempfile
import time
import urllib.request
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# sha256 of what each file holds, unpacked.
_FULL = """
ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db  train-images-idx3-ubyte
65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5  train-labels-idx1-ubyte
0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7  t10k-images-idx3-ubyte
ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2  t10k-labels-idx1-ubyte
"""
# As tools/make_embedded_digits.py prints them.
_EMBEDDED = """
4fba5cedc4bf60f1e40dfb11bcce0dde6635af5b1728d8ce52d8425f05442909  train-images-idx3-ubyte
461fcfc2bd010db3d8756f990f15555bbe0b032804d6bba4c57f96d7fdca329a  train-labels-idx1-ubyte
9193556b2cef8059103d4598695d4548b4342665a9690ffaa4f14b6782a8a5ae  t10k-images-idx3-ubyte
c0350f43ab1e57603746897c096982c222c8007d74e7d3eb3240667e6cc1ae9e  t10k-labels-idx1-ubyte
"""
_LARGEST = 60000 * 28 * 28 + 16  # bytes of the largest file, unpacked
_MIRRORS = (  # PyTorch's, and that of TensorFlow Datasets
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_MISSING = "is missing"
_TIMEOUT = 10.0  # seconds without a byte before a mirror is given up
_LIMIT = 300.0  # seconds for the four files, 11 MB, before a mirror is given up


class MNIST(NamedTuple):
    """The digits and what they are. The arrays are read-only: every `load` hands out the same."""

    train_images: NDArray[np.uint8]  # (N, 28, 28), from 0, the paper, to 255, the ink
    train_labels: NDArray[np.int64]  # (N,), from 0 to 9
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    source: str  # one line to print beside a result
    full: bool  # False for the embedded digits
    checksum: str  # start of the sha256 over the content of the four files


def load() -> MNIST:
    """Return the full MNIST or, with a warning, the embedded digits.

    Returns:
        The digits. The first call reads or downloads them, later ones in the process reuse them.

    Raises:
        RuntimeError: The embedded digits are damaged; install the package again.
    """
    data, notices = _find(os.environ.get("BNLIB_DATA", ""), _cache_folder())
    for notice in notices:
        warnings.warn(notice, stacklevel=2)
    return data


def binarize(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the images as rows of zeros and ones: 1 where a pixel is above 127.

    The paper (section 4.1) says "binary image" and gives no threshold; 127 is our choice.

    Args:
        images: Pixels from 0 to 255, (N, 28, 28).

    Returns:
        (N, 784), each 0 or 1.

    Raises:
        TypeError: The images are not uint8; scaled ones would all become 0.
    """
    return (_rows(images) > 127).astype(np.float32)


def scale(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the images as rows of pixel / 255, from 0 to 1.

    Args:
        images: Pixels from 0 to 255, (N, 28, 28).

    Returns:
        (N, 784).

    Raises:
        TypeError: The images are not uint8; they may be scaled already.
    """
    return _rows(images).astype(np.float32) / np.float32(255)


def standardize(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the images as rows of (pixel / 255 − 0.1307) / 0.3081.

    These are the mean and the standard deviation of all pixels of the full training set, so that
    its rows have mean 0 and standard deviation 1 over all pixels.

    Args:
        images: Pixels from 0 to 255, (N, 28, 28).

    Returns:
        (N, 784).

    Raises:
        TypeError: The images are not uint8; they may be scaled already.
    """
    return (scale(images) - np.float32(0.1307)) / np.float32(0.3081)


def _rows(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if images.dtype != np.uint8:
        raise TypeError(f"images: dtype is {images.dtype}, expected uint8, pixels from 0 to 255")
    return images.reshape(-1, 28 * 28)


@functools.lru_cache(maxsize=1)
def _find(setting: str, cache: Path) -> tuple[MNIST, list[str]]:
    """The digits for a setting of BNLIB_DATA, and what the reader should know of the search."""
    notices: list[str] = []
    contents: list[bytes] = []
    if setting != "embedded":
        contents = (
            _from_user(setting, notices)
            or _from_cache(cache, notices)
            or _from_download(cache, notices)
        )
    full = bool(contents)
    if not full:
        contents, faults = _read(Path(__file__).with_name("data"), _EMBEDDED)
        if faults:
            raise RuntimeError(f"embedded digits: {_listed(faults)}; install the package again")
    train_images, train_bytes, test_images, test_bytes = map(_parse_idx, contents)
    train_labels, test_labels = train_bytes.astype(np.int64), test_bytes.astype(np.int64)
    train_labels.flags.writeable = test_labels.flags.writeable = False
    kind = "full MNIST" if full else "embedded digits"
    source = f"{kind}, {len(train_images):,} + {len(test_images):,} images"
    checksum = hashlib.sha256(b"".join(contents)).hexdigest()[:16]
    data = MNIST(train_images, train_labels, test_images, test_labels, source, full, checksum)
    return data, notices


def _cache_folder() -> Path:
    if chosen := os.environ.get("BNLIB_CACHE"):
        return _absolute(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _absolute(base) / "batchnorm-book"


def _absolute(folder: str) -> Path:
    expanded = os.path.expanduser(folder)
    if expanded.startswith("~"):  # there is no home; a folder named ~ is never meant
        expanded = os.path.join(tempfile.gettempdir(), expanded.lstrip("~/\\"))
    return Path(os.path.abspath(expanded))


def _from_user(setting: str, notices: list[str]) -> list[bytes]:
    if not setting:
        return []
    folder = _absolute(setting)
    contents, faults = _read(folder / "MNIST" / "raw", _FULL)
    if faults:
        what = _listed(faults) if os.path.isdir(folder) else "there is no such folder"
        notices.append(
            f"BNLIB_DATA={setting}: {what}. Expected: the four files of MNIST, gzipped or plain, "
            f"in {folder / 'MNIST' / 'raw'}."
        )
    return contents


def _from_cache(cache: Path, notices: list[str]) -> list[bytes]:
    contents, faults = _read(cache / "MNIST" / "raw", _FULL)
    for path, fault in faults.items():
        if fault != _MISSING:
            aside = path.with_name(f"{path.name}.damaged")
            notices.append(f"Cache: {path} {fault}; not used, and set aside as {aside.name}.")
            with contextlib.suppress(OSError):  # read-only: it stays there, and stays unused
                os.replace(path, aside)
    return contents


def _from_download(cache: Path, notices: list[str]) -> list[bytes]:
    downloaded: dict[str, bytes] = {}  # a file that one mirror gave need not come from the next
    faults = []
    for mirror in _MIRRORS:
        try:
            contents = _download(mirror, downloaded)
        except Exception as error:  # whatever it is, the next mirror may do better
            faults.append(" ".join(f"{mirror}: {type(error).__name__}: {error}".split()))
        else:
            _keep(downloaded, cache, notices)
            return contents
    notices.append(
        "Using the 5,000 embedded digits, not the full MNIST: its download failed "
        f"({'; '.join(faults)}). For the full data go online, or set BNLIB_DATA to a folder with "
        "MNIST/raw/train-images-idx3-ubyte.gz and the three other files; BNLIB_DATA=embedded takes "
        "the embedded digits without this warning."
    )
    return []


def _download(mirror: str, downloaded: dict[str, bytes]) -> list[bytes]:
    """The four contents from a mirror; adds the files, as they came, to `downloaded`."""
    end = time.monotonic() + _LIMIT
    contents = []
    for name, sha256 in _checksums(_FULL).items():
        file = f"{name}.gz"
        stored = downloaded.get(file) or _fetch(mirror + file, end)
        try:
            contents.append(_verified(stored, sha256))
        except ValueError as error:
            raise ValueError(f"{file} {error}") from error
        downloaded[file] = stored
    return contents


def _fetch(url: str, end: float) -> bytes:
    stored = bytearray()
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
        while part := response.read1(1 << 16):  # what there is; read() would wait for all of it
            stored += part
            if time.monotonic() > end or len(stored) > _LARGEST:
                raise OSError(f"{len(stored):,} bytes of {url} and no end; given up")
    return bytes(stored)


def _keep(downloaded: dict[str, bytes], cache: Path, notices: list[str]) -> None:
    """Write the files to the cache, each of them whole or not at all."""
    kept = cache / "MNIST" / "raw"
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="download-", dir=cache) as folder:
            for name, stored in downloaded.items():
                Path(folder, name).write_bytes(stored)
            for name in downloaded:
                os.replace(Path(folder, name), kept / name)
    except OSError as error:
        notices.append(
            f"MNIST was downloaded but could not be kept in the cache ({error}), and the next run "
            "downloads it again; set BNLIB_CACHE to a folder that can be written."
        )


def _checksums(lines: str) -> dict[str, str]:
    words = lines.split()
    return dict(zip(words[1::2], words[::2], strict=True))


def _read(raw: Path, checksums: str) -> tuple[list[bytes], dict[Path, str]]:
    """The four verified contents (or an empty list), and what is wrong with which file."""
    contents: list[bytes] = []
    faults: dict[Path, str] = {}
    for name, sha256 in _checksums(checksums).items():
        for path in raw / f"{name}.gz", raw / name:
            try:
                contents.append(_verified(path.read_bytes(), sha256))
                break
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                faults[path] = f"cannot be read ({error})"
            except ValueError as error:
                faults[path] = str(error)
        else:
            faults.setdefault(raw / f"{name}.gz", _MISSING)
    return contents if len(contents) == 4 else [], faults


def _listed(faults: dict[Path, str]) -> str:
    return "; ".join(f"{path.name} {fault}" for path, fault in faults.items())


def _verified(stored: bytes, sha256: str) -> bytes:
    """The content of a file, unpacked, or a ValueError that completes the sentence "FILE ..."."""
    content = stored
    if stored.startswith(b"\x1f\x8b"):  # gzip, whatever the file is called
        try:
            content = gzip.GzipFile(fileobj=io.BytesIO(stored)).read(_LARGEST + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"is damaged or another file ({len(stored):,} bytes that cannot be unpacked: "
                f"{error})"
            ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"is damaged or another file (it holds {len(content):,} bytes with sha256 "
            f"{found[:8]}..., expected {sha256[:8]}...)"
        )
    return content


def _parse_idx(content: bytes) -> NDArray[np.uint8]:
    """The array in an IDX file: 0, 0, 8 for uint8, dimensions, big-endian sizes, values."""
    if content[:3] != b"\0\0\x08" or len(content) < 4 or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"IDX: header is {content[:8]!r}, expected 0, 0, 8, dimensions, sizes")
    start = 4 + 4 * content[3]
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) != start + math.prod(shape):
        raise ValueError(f"IDX: {len(content) - start:,} values, expected those of shape {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
